# SPDX-License-Identifier: GPL-2.0-or-later
"""The proxy that tor itself goes through (``tor(1)``, Socks5Proxy and others).

User and password are in a file that only root can read, never in the address;
no message and no ``repr`` holds them.  Pure.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from ipaddress import IPv6Address
from urllib.parse import quote

from rules.model import Address
from torvm.places import PlaceError, address_and_port

MOST = 255  # bytes of a user and of a password (RFC 1929)
ROWS = 2  # user, password
EXPECTED = "expected socks4://, socks5:// or http:// with ADDRESS:PORT"

_URL = re.compile(r"([a-z0-9]{1,10})://(.{1,60})")


class ProxyError(ValueError):
    """Words that are no proxy, or a login that is none; never says what it read."""


class Kind(Enum):
    """What a proxy speaks; the value is the word in a policy file."""

    SOCKS4 = "socks4"
    SOCKS5 = "socks5"
    HTTP = "http"  # CONNECT (RFC 9110, 9.3.6)


@dataclass(frozen=True, slots=True)
class Login:
    """A user and a password, 1..255 bytes of ASCII each."""

    user: str = field(repr=False)
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy at an address: nobody here could ask for its name."""

    kind: Kind
    address: Address
    port: int
    login: Login | None = None

    @property
    def place(self) -> str:
        """The address and the port as tor writes them."""
        v6 = isinstance(self.address, IPv6Address)
        host = f"[{self.address}]" if v6 else str(self.address)
        return f"{host}:{self.port}"

    def options(self) -> Iterator[str]:
        """Yield tor's options, a line each; secret."""
        login = self.login
        match self.kind:
            case Kind.SOCKS4:
                yield f"Socks4Proxy {self.place}"
            case Kind.SOCKS5:
                yield f"Socks5Proxy {self.place}"
                if login is not None:
                    yield f"Socks5ProxyUsername {_quoted(login.user)}"
                    yield f"Socks5ProxyPassword {_quoted(login.password)}"
            case Kind.HTTP:
                yield f"HTTPSProxy {self.place}"
                if login is not None:
                    both = f"{login.user}:{login.password}"
                    yield f"HTTPSProxyAuthenticator {_quoted(both)}"

    @property
    def url(self) -> str:
        """The value of TOR_PT_PROXY (pt-spec, 3.5); secret."""
        words = {Kind.SOCKS4: "socks4a", Kind.SOCKS5: "socks5", Kind.HTTP: "http"}
        who = ""
        if self.login is not None:
            user, password = self.login.user, self.login.password
            who = f"{quote(user, safe='')}:{quote(password, safe='')}@"
        return f"{words[self.kind]}://{who}{self.place}"

    def known_by(self, login: Login | None) -> "Proxy":
        """Return the same with a login, or raise `ProxyError` if it takes none."""
        if login is not None and self.kind is Kind.SOCKS4:
            raise ProxyError("SOCKS 4 knows no password, expected socks5://")
        if login is not None and self.kind is Kind.HTTP and ":" in login.user:
            raise ProxyError("expected a user without a colon (RFC 7617)")
        return replace(self, login=login)


def parse(untrusted_text: str) -> Proxy:
    """Read ``KIND://ADDRESS:PORT``, or raise `ProxyError`."""
    found = _URL.fullmatch(untrusted_text)
    kinds = {kind.value: kind for kind in Kind}
    if not found or found[1] not in kinds:
        raise ProxyError(EXPECTED)
    if "@" in found[2]:
        raise ProxyError("expected no password here, but a file: auth = FILE")
    try:
        address, port = address_and_port(found[2].removesuffix("/"))
    except PlaceError as error:
        raise ProxyError(f"{EXPECTED}: {error}") from None
    return Proxy(kinds[found[1]], address, port)


def login(untrusted_file: bytes) -> Login:
    """Read a user and a password, a line each, or raise `ProxyError`."""
    rows = untrusted_file.replace(b"\r\n", b"\n").removesuffix(b"\n").split(b"\n")
    if len(rows) != ROWS or not all(
        row.isascii() and row.decode("ascii").isprintable() and 0 < len(row) <= MOST
        for row in rows
    ):
        expected = f"expected two lines of 1-{MOST} letters of ASCII"
        raise ProxyError(f"auth: {expected}, user and password")
    user, password = (row.decode("ascii") for row in rows)
    return Login(user, password)


def _quoted(text: str) -> str:
    """Return a value of a torrc that may have any letter (``tor(1)``)."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'

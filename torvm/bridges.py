# SPDX-License-Identifier: GPL-2.0-or-later
"""Bridges: relays that no list names (``tor(1)``, option Bridge).

Who uses which bridge can put a person in danger.  No message and no ``repr``
holds a word of a line, only its number.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from rules.model import MAX_PORT, Address, Family, family

MAX_BRIDGES = 100
MAX_LINE = 1024  # characters

# The transports whose program Debian packages; what they do with the network
# is known, and so what the guard must let pass.
TRANSPORTS = ("obfs4",)

_ADDRESS = re.compile(r"(?:([0-9.]{7,15})|\[([0-9A-Fa-f:.]{2,45})\]):([0-9]{1,5})")
_FINGERPRINT = re.compile(r"\$?([0-9A-Fa-f]{40})")
# What a transport is told goes through SOCKS authentication as K=V;K=V
# (pt-spec 3.5), so neither may hold a semicolon, a quote or a space.
_ARGUMENT = re.compile(r"[A-Za-z0-9_-]{1,32}=[A-Za-z0-9+/=_.,:-]{0,400}")


class BridgeError(ValueError):
    """A line that is no bridge; the message never holds what it says."""


@dataclass(frozen=True, slots=True, repr=False)
class Bridge:
    """One bridge; ``transport`` is empty for one that speaks plain Tor."""

    address: Address
    port: int
    transport: str = ""
    fingerprint: str = ""
    arguments: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return "Bridge(…)"

    @property
    def line(self) -> str:
        """The value of tor's option Bridge; secret."""
        v6 = isinstance(self.address, IPv6Address)
        host = f"[{self.address}]" if v6 else str(self.address)
        place = f"{host}:{self.port}"
        words = (self.transport, place, self.fingerprint, *self.arguments)
        return " ".join(word for word in words if word)


def parse(untrusted_text: bytes) -> tuple[Bridge, ...]:
    """Read a file of bridge lines as the bridge distributors hand them out.

    Empty lines and lines that begin with ``#`` say nothing; a line may begin
    with the word ``Bridge``.  Raise `BridgeError` for the first line that is
    not understood as a whole, and for a file without a bridge.
    """
    try:
        lines = untrusted_text.decode("ascii").splitlines()
    except UnicodeDecodeError:
        raise BridgeError("bridges: not ASCII, expected one bridge a line") from None
    found = tuple(_bridges(lines))
    if not found:
        raise BridgeError("bridges: no bridge in the file")
    if len(found) > MAX_BRIDGES:
        raise BridgeError(f"bridges: expected at most {MAX_BRIDGES}")
    return found


def _bridges(untrusted_lines: list[str]) -> Iterator[Bridge]:
    for number, untrusted_line in enumerate(untrusted_lines, 1):
        untrusted_words = untrusted_line.split()
        if not untrusted_words or untrusted_words[0].startswith("#"):
            continue
        if untrusted_words[0].lower() == "bridge":
            del untrusted_words[0]
        try:
            yield _bridge(untrusted_words)
        except BridgeError as error:
            raise BridgeError(f"bridges:{number}: {error}") from None


def _bridge(untrusted_words: list[str]) -> Bridge:
    if sum(map(len, untrusted_words)) > MAX_LINE:
        raise BridgeError("is too long")
    words = iter(untrusted_words)
    word = next(words, "")
    transport = ""
    if not _ADDRESS.fullmatch(word):
        if word not in TRANSPORTS:
            known = " or ".join(TRANSPORTS)
            raise BridgeError(f"expected ADDRESS:PORT or {known} ADDRESS:PORT")
        transport, word = word, next(words, "")
    address, port = _place(word)
    rest = list(words)
    fingerprint = _FINGERPRINT.fullmatch(rest[0]) if rest else None
    if fingerprint:
        del rest[0]
    if rest and not transport:
        raise BridgeError("expected a fingerprint of 40 hex digits and no more")
    if not all(_ARGUMENT.fullmatch(argument) for argument in rest):
        raise BridgeError("expected NAME=VALUE after the fingerprint")
    known_as = fingerprint[1].upper() if fingerprint else ""
    return Bridge(address, port, transport, known_as, tuple(rest))


def _place(untrusted_word: str) -> tuple[Address, int]:
    found = _ADDRESS.fullmatch(untrusted_word)
    if not found:
        raise BridgeError("expected ADDRESS:PORT")
    try:
        address, port = ip_address(found[1] or found[2]), int(found[3])
    except ValueError:
        raise BridgeError("expected an IP address") from None
    if not 0 < port <= MAX_PORT:
        raise BridgeError(f"expected a port of 1-{MAX_PORT}")
    mapped = family(address) is Family.IPV6 and IPv6Address(address).ipv4_mapped
    if mapped or address.is_loopback or address.is_multicast or address.is_unspecified:
        raise BridgeError("expected the address of another host")
    return address, port

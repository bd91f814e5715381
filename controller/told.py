# SPDX-License-Identifier: GPL-2.0-or-later
"""What a domain is told when it asks for a name, as getent(1) prints it.

Applications ask by getaddrinfo(3), which looks at nsswitch.conf and /etc/hosts of
their domain and asks its resolvers; ``getent ahosts`` does just that.  Whoever
answers is not trusted, and neither is who runs in the domain.
"""

from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address

from controller.question import QuestionError
from rules.model import Address, Name, RuleError, shown

GETENT = "/usr/bin/getent"  # libc-bin, which Debian always has
NO_SUCH_NAME = 2  # exit status of getent(1)
WITHIN = 40.0  # seconds; by resolv.conf(5) 3 servers have 5 s each, twice
MOST = 64  # addresses; each is explained, and each kernel asked about it
LONGEST = 65536  # bytes
_KINDS = frozenset({"STREAM", "DGRAM", "RAW"})


class ToldError(ValueError):
    """What was heard is no answer."""


def needs_asking(host: str) -> bool:
    """Whether it is a name; `QuestionError` if it is neither that nor an address."""
    try:
        ip_address(host)
    except ValueError:
        _name(host)
        return True
    return False


def command(host: str) -> tuple[str, ...]:
    """Return the program that asks for a name; `QuestionError` if it is none."""
    return (GETENT, "ahosts", _name(host))


def _name(host: str) -> str:
    try:
        return Name(host.lower()).host
    except RuleError:
        raise QuestionError(f"{shown(host)}: no name that can be asked for") from None


def answer(status: int, untrusted_text: bytes) -> tuple[Address, ...]:
    """Read what the program printed; no address if there is no such name.

    Each line is an address, a kind of socket, and perhaps the name.
    """
    if status == NO_SUCH_NAME:
        return ()
    if status != 0:
        raise ToldError(f"getent ended with exit status {status}")
    try:
        untrusted_lines = untrusted_text.decode("ascii").splitlines()
    except UnicodeDecodeError:
        raise ToldError("the answer is not ASCII") from None
    return addresses(map(_first, untrusted_lines))


def _first(untrusted_line: str) -> str:
    match untrusted_line.split():
        case [untrusted_address, kind, *_] if kind in _KINDS:
            return untrusted_address
    raise ToldError(f"{shown(untrusted_line)}: no line of getent ahosts")


def addresses(untrusted_words: Iterable[str]) -> tuple[Address, ...]:
    """Read addresses, each once; `ToldError` for what is none, or if they are many.

    What IPv6 sockets call ::ffff:192.0.2.1 is sent to 192.0.2.1 (RFC 4291 2.5.5.2).
    """
    found = tuple(dict.fromkeys(map(_address, untrusted_words)))
    if len(found) > MOST:
        raise ToldError(f"{len(found)} addresses, expected no more than {MOST}")
    return found


def _address(untrusted_word: str) -> Address:
    try:
        address = ip_address(untrusted_word)
    except ValueError:
        raise ToldError(f"{shown(untrusted_word)}: no address") from None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            raise ToldError(f"{shown(untrusted_word)}: an address of one link alone")
        return address.ipv4_mapped or address
    return address

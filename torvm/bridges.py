# SPDX-License-Identifier: GPL-2.0-or-later
"""Bridges: relays that no list names (``tor(1)``, option Bridge).

Who uses which bridge can put a person in danger.  No message and no ``repr``
holds a word of a line, only its number.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address

from rules.model import Address
from torvm.places import ADDRESS, Place, PlaceError, address_and_port
from torvm.pluggable import (
    ELSEWHERE,
    MAX_ARGUMENTS,
    TRANSPORTS,
    Program,
    Way,
    one_front,
)

MAX_BRIDGES = 100
MAX_LINE = 1024  # characters

_FINGERPRINT = re.compile(r"\$?([0-9A-Fa-f]{40})")


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
    def program(self) -> Program | None:
        """What speaks with it in place of tor; None is tor itself."""
        return TRANSPORTS[self.transport].program if self.transport else None

    @property
    def way(self) -> Way:
        """How it is got to; `PlaceError` if its arguments do not say."""
        endpoint = (self.address, self.port)
        if not self.transport:
            return Way((Place(*endpoint),))
        kind = TRANSPORTS[self.transport]
        return kind.way(endpoint, kind.read(self.arguments))

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
    if not ADDRESS.fullmatch(word):
        if word not in TRANSPORTS:
            raise BridgeError(_unknown(word))
        transport, word = word, next(words, "")
    try:
        address, port = address_and_port(word)
        rest = list(one_front(words))
        fingerprint = _FINGERPRINT.fullmatch(rest[0]) if rest else None
        if fingerprint:
            del rest[0]
        if rest and not transport:
            raise BridgeError("expected a fingerprint of 40 hex digits and no more")
        if len(";".join(rest)) > MAX_ARGUMENTS:
            raise BridgeError(f"expected at most {MAX_ARGUMENTS} bytes of arguments")
        known_as = fingerprint[1].upper() if fingerprint else ""
        bridge = Bridge(address, port, transport, known_as, tuple(rest))
        _ = bridge.way
    except PlaceError as error:
        raise BridgeError(str(error)) from None
    return bridge


def _unknown(untrusted_word: str) -> str:
    if untrusted_word in ELSEWHERE:
        return f"{untrusted_word}: {ELSEWHERE[untrusted_word]}"
    known = ", ".join(TRANSPORTS)
    return f"expected ADDRESS:PORT, or one of {known} before it"

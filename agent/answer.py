# SPDX-License-Identifier: GPL-2.0-or-later
"""DNS questions and what their answers mean (RFC 1035); no I/O.

The only module that knows dnspython, which is loaded at the first question: an
agent whose rules name no host does without.
"""

import struct
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import dns.message

from rules.model import Address, Family

HEADER = 12  # bytes
RESPONSE, CUT = 0x80, 0x02  # bits of the third one
_COUNTS = struct.Struct("!3H")  # records of the three sections, behind six of these
MOST_RECORDS = 2048
"""So many are read of a reply; to read one takes up to a quarter of a millisecond."""

TYPES = {Family.IPV4: "A", Family.IPV6: "AAAA"}


@dataclass(frozen=True, slots=True)
class Found:
    """The addresses of a name, for ``ttl`` seconds.

    None at all is an answer too: there is no such name, or it has no address of
    this family.  If nothing says how long that holds, ``ttl`` is huge.
    """

    addresses: frozenset[Address]
    ttl: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The server could not or would not say."""

    reason: str


@dataclass(frozen=True, slots=True)
class Truncated:
    """The answer is too long for UDP."""


@dataclass(frozen=True, slots=True)
class Unrelated:
    """Not a reply to this question, or not DNS: anyone can send that."""


Reply = Found | Failed | Truncated | Unrelated


def question(name: str, kind: Family, number: int) -> bytes:
    """Return the message that asks a recursive server for one record type.

    ``number`` is the query id, 16 bits.  Without EDNS: no reply is longer than
    512 bytes, so none is fragmented, which could be completed by a stranger.
    Raises `ValueError` for what can be no name.
    """
    import dns.exception  # noqa: PLC0415 - loaded only where it is needed
    import dns.message  # noqa: PLC0415

    try:
        return dns.message.make_query(name, TYPES[kind], id=number).to_wire()
    except dns.exception.DNSException as error:
        raise ValueError(f"{name!r} is not a host name: {error}") from error


def read(untrusted_reply: bytes, asked: bytes) -> Reply:
    """Say what a message means as a reply to the question ``asked``."""
    if not _is_reply(untrusted_reply, asked):
        return Unrelated()
    if untrusted_reply[2] & CUT:
        return Truncated()
    if sum(_COUNTS.unpack_from(untrusted_reply, 6)) > MOST_RECORDS:
        return Failed(f"more than {MOST_RECORDS} records")
    import dns.exception  # noqa: PLC0415
    import dns.message  # noqa: PLC0415

    try:
        return _meaning(dns.message.from_wire(untrusted_reply))
    except (dns.exception.DNSException, ValueError) as error:
        return Failed(f"malformed reply: {error}")


def _is_reply(untrusted_reply: bytes, asked: bytes) -> bool:
    """Compare id, kind of message and question (RFC 5452, 9.1)."""
    head, opcode = untrusted_reply[:HEADER], 0x78
    return (
        len(head) == HEADER
        and head[:2] == asked[:2]
        and head[2] & (RESPONSE | opcode) == RESPONSE
        and head[4:6] == asked[4:6]
        # Some servers change the case of letters; lengths and types have none.
        and untrusted_reply[HEADER : len(asked)].lower() == asked[HEADER:].lower()
    )


def _meaning(reply: "dns.message.Message") -> Found | Failed:
    import dns.message  # noqa: PLC0415
    import dns.rcode  # noqa: PLC0415

    known = reply.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)
    if not known or not isinstance(reply, dns.message.QueryMessage):
        return Failed(dns.rcode.to_text(reply.rcode()))
    chain = reply.resolve_chaining()
    addresses = (ip_address(record.address) for record in chain.answer or ())
    return Found(frozenset(filter(_is_a_host, addresses)), chain.minimum_ttl)


def _is_a_host(address: Address) -> bool:
    """Leave out what a rule must never name, whoever says so."""
    return not (address.is_unspecified or address.is_multicast)

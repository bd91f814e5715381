# SPDX-License-Identifier: GPL-2.0-or-later
"""DHCP for a client that has one address to get, its own (RFC 2131, RFC 2132).

There is no pool and no memory: each answer is computed from the place of the
vif that the question came by, whatever address it asks for.

The mask has 32 bits, as everywhere behind a vif: nobody else is on the link.
How to reach the gateway then stands in the classless routes (RFC 3442), the
first of which says that it is on the link; who does not know that option has
the router option (docs/adr/0013-a-client-that-asks-is-told-its-own.md).
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address

from agent.plan import LIFETIME, Place

# op, htype, hlen, hops, xid, secs, flags, ciaddr, yiaddr, siaddr, giaddr,
# chaddr, sname and file, magic cookie (RFC 2131, 2)
_HEADER = struct.Struct("!4BIHH4s4s4s4s16s192x4s")
_MAGIC = bytes((99, 130, 83, 99))
_REQUEST, _REPLY = 1, 2
_ETHERNET, _MAC_SIZE = 1, 6
_LEAST = 300  # bytes of a BOOTP message, which some clients insist on (RFC 1542, 2.1)
_NOWHERE = bytes(4)

_PAD, _END = 0, 255
_MASK, _ROUTER, _RESOLVERS = 1, 3, 6
_ASKED_ADDRESS, _LEASE, _KIND, _SERVER, _WANTED = 50, 51, 53, 54, 55
_CLIENT_ID = 61
_ROUTES = (121, 249)  # RFC 3442, and the number it has in old Windows


class Kind(IntEnum):
    """Option 53 (RFC 2132, 9.6), as far as it concerns us."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    ACK = 5
    NAK = 6
    INFORM = 8


@dataclass(frozen=True, slots=True)
class Question:
    """What a client sent."""

    kind: Kind
    xid: int
    flags: int
    mac: bytes
    has: bytes  # ciaddr
    options: Mapping[int, bytes]


@dataclass(frozen=True, slots=True)
class Answer:
    """A message, and the address to send it to; None is everybody on the link."""

    message: bytes
    to: IPv4Address | None


def answer(untrusted: bytes, place: Place) -> Answer | None:
    """Return the answer to a message that came by the vif of ``place``.

    None: it is not a question that we have to answer.
    """
    question = _question(untrusted)
    if question is None or question.mac != place.mac or place.gateway is None:
        return None
    said = _decide(question, place, place.gateway)
    if said is None:
        return None
    message = _message(question, place, place.gateway, said)
    # Who has no address yet hears broadcasts only; who renews one hears no other.
    usable = question.has == place.ip.packed and said is not Kind.NAK
    return Answer(message, place.ip if usable else None)


def _question(untrusted: bytes) -> Question | None:
    if len(untrusted) < _HEADER.size:
        return None
    op, kind, size, _, xid, _, flags, has, _, _, relay, mac, magic = (
        _HEADER.unpack_from(untrusted)
    )
    ours = (_REQUEST, _ETHERNET, _MAC_SIZE, _NOWHERE, _MAGIC)
    if (op, kind, size, relay, magic) != ours:
        return None
    options = dict(_options(untrusted[_HEADER.size :]))
    try:
        asked = Kind(int.from_bytes(options.get(_KIND, b"")))
    except ValueError:
        return None
    return Question(asked, xid, flags, mac[:_MAC_SIZE], has, options)


def _options(untrusted: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield options up to the end or to one that is cut off (RFC 2132, 2)."""
    at = 0
    while at < len(untrusted) and untrusted[at] != _END:
        if untrusted[at] == _PAD:
            at += 1
            continue
        body = at + 2
        if body > len(untrusted) or body + untrusted[at + 1] > len(untrusted):
            return
        at = body + untrusted[at + 1]
        yield untrusted[body - 2], untrusted[body:at]


def _decide(question: Question, place: Place, server: IPv4Address) -> Kind | None:
    """Say what to answer (RFC 2131, 4.3)."""
    options = question.options
    if options.get(_SERVER, server.packed) != server.packed:
        return None  # it chose somebody else
    match question.kind:
        case Kind.DISCOVER:
            return Kind.OFFER
        case Kind.INFORM:
            return Kind.ACK if question.has == place.ip.packed else None
        case Kind.REQUEST:
            wanted = options.get(_ASKED_ADDRESS, question.has)
            return Kind.ACK if wanted == place.ip.packed else Kind.NAK
        case Kind.OFFER | Kind.ACK | Kind.NAK:
            return None


def _message(
    question: Question, place: Place, server: IPv4Address, said: Kind
) -> bytes:
    gives = said in {Kind.OFFER, Kind.ACK} and question.kind is not Kind.INFORM
    header = _HEADER.pack(
        *(_REPLY, _ETHERNET, _MAC_SIZE, 0, question.xid, 0, question.flags),
        question.has if said is Kind.ACK else _NOWHERE,
        place.ip.packed if gives else _NOWHERE,
        *(_NOWHERE, _NOWHERE, question.mac, _MAGIC),
    )
    options = {_KIND: bytes((said,)), _SERVER: server.packed}
    if gives:
        options[_LEASE] = LIFETIME.to_bytes(4)
    if said is not Kind.NAK:
        options |= _parameters(question, place, server)
    if _CLIENT_ID in question.options:  # RFC 6842
        options[_CLIENT_ID] = question.options[_CLIENT_ID]
    body = b"".join(bytes((code, len(x))) + x for code, x in options.items())
    return (header + body + bytes((_END,))).ljust(_LEAST, b"\0")


def _parameters(
    question: Question, place: Place, gateway: IPv4Address
) -> dict[int, bytes]:
    wanted = question.options.get(_WANTED, b"")
    by_link = bytes((32,)) + gateway.packed + _NOWHERE
    by_gateway = bytes((0,)) + gateway.packed
    return {
        _MASK: b"\xff" * 4,  # before the routers (RFC 2132, 3.3)
        _ROUTER: gateway.packed,
        _RESOLVERS: b"".join(each.packed for each in place.resolvers),
        **{code: by_link + by_gateway for code in _ROUTES if code in wanted},
    }

# SPDX-License-Identifier: GPL-2.0-or-later
"""DHCPv6 for a client that has one address to get, its own (RFC 8415).

As in `agent.dhcp` there is no pool and no memory.  Of the associations for
addresses (IA_NA) that a client asks for, the first is given the address; it has
no prefixes and no temporary addresses to get.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv6Address

from agent.plan import LIFETIME, ROUTER_MAC, Place

_LINK_LAYER, _ETHERNET = 3, 1  # DUID-LL (RFC 8415, 11.4)
SERVER = struct.pack("!HH", _LINK_LAYER, _ETHERNET) + ROUTER_MAC
"""Our DUID; it outlives us, as there is nothing in it but the vif's MAC address."""

_OPTION = struct.Struct("!HH")  # code, length
_ASSOCIATION = struct.Struct("!4sII")  # IAID, T1, T2
_ADDRESS = struct.Struct("!16sII")  # address, preferred and valid lifetime
_HEADER = 4  # bytes: the kind and the transaction
_MAX_DUID = 130  # bytes: its type is two of them (RFC 8415, 11.1)
_MAX_ASSOCIATIONS = 8

_CLIENT_ID, _SERVER_ID, _IA_NA, _IA_TA, _IA_ADDRESS = 1, 2, 3, 4, 5
_PREFERENCE, _STATUS, _RAPID, _RESOLVERS, _IA_PD = 7, 13, 14, 23, 25
_MOST = b"\xff"  # preference: so that it does not wait for others

_SUCCESS, _NO_ADDRESS, _NOT_ON_LINK, _NO_PREFIX = 0, 2, 4, 6


class Kind(IntEnum):
    """Message types (RFC 8415, 7.3), as far as they concern us."""

    SOLICIT = 1
    ADVERTISE = 2
    REQUEST = 3
    CONFIRM = 4
    RENEW = 5
    REBIND = 6
    REPLY = 7
    RELEASE = 8
    DECLINE = 9
    INFORMATION_REQUEST = 11


# Which must name us, which must not, and which may (RFC 8415, 16).
_TO_US = {Kind.REQUEST, Kind.RENEW, Kind.RELEASE, Kind.DECLINE}
_TO_ANYBODY = {Kind.SOLICIT, Kind.CONFIRM, Kind.REBIND}

Option = tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class Question:
    """What a client sent."""

    kind: Kind
    transaction: bytes
    options: tuple[Option, ...]

    def first(self, code: int) -> bytes | None:
        """Return the first option of a kind."""
        return next((body for found, body in self.options if found == code), None)


def answer(untrusted: bytes, place: Place) -> bytes | None:
    """Return the answer to a message that came by the vif of ``place``.

    None: it is not a question that we have to answer.
    """
    question = _question(untrusted)
    if question is None or place.ip6 is None or not _is_for_us(question):
        return None
    said = _decide(question, place.ip6)
    return None if said is None else _message(question, *said, place)


def _decide(question: Question, ours: IPv6Address) -> tuple[Kind, list[Option]] | None:
    """Say what to answer (RFC 8415, 18.3)."""
    match question.kind:
        case Kind.SOLICIT if question.first(_RAPID) is not None:
            return Kind.REPLY, [*_given(question, ours), (_RAPID, b"")]
        case Kind.SOLICIT:
            return Kind.ADVERTISE, [*_given(question, ours), (_PREFERENCE, _MOST)]
        case Kind.REQUEST | Kind.RENEW | Kind.REBIND:
            return Kind.REPLY, _given(question, ours)
        case Kind.CONFIRM:
            known = _addresses(question)
            right = all(each == ours for each in known)
            said = [_status(_SUCCESS if right else _NOT_ON_LINK)]
            return (Kind.REPLY, said) if known else None
        case Kind.RELEASE | Kind.DECLINE | Kind.INFORMATION_REQUEST:
            return Kind.REPLY, [_status(_SUCCESS)]
        case Kind.ADVERTISE | Kind.REPLY:
            return None


def _question(untrusted: bytes) -> Question | None:
    if len(untrusted) < _HEADER:
        return None
    try:
        kind = Kind(untrusted[0])
        options = tuple(_options(untrusted[_HEADER:]))
    except ValueError:
        return None
    return Question(kind, untrusted[1:_HEADER], options)


def _options(untrusted: bytes) -> Iterator[Option]:
    """Yield options; `ValueError` if one is cut off."""
    at = 0
    while at < len(untrusted):
        body = at + _OPTION.size
        if body > len(untrusted):
            raise ValueError("no length")
        code, length = _OPTION.unpack_from(untrusted, at)
        at = body + length
        if at > len(untrusted):
            raise ValueError("longer than the message")
        yield code, untrusted[body:at]


def _is_for_us(question: Question) -> bool:
    server, client = question.first(_SERVER_ID), question.first(_CLIENT_ID)
    if client is None:
        named = question.kind is Kind.INFORMATION_REQUEST
    else:
        named = 0 < len(client) <= _MAX_DUID
    if question.kind in _TO_US:
        return named and server == SERVER
    if question.kind in _TO_ANYBODY:
        return named and server is None
    return named and server in {None, SERVER}


def _given(question: Question, address: IPv6Address) -> list[Option]:
    """Return what a client gets for each association that it asks for."""
    asked = [x for x in question.options if x[0] in {_IA_NA, _IA_TA, _IA_PD}]
    given: list[Option] = []
    free = True
    for code, body in asked[:_MAX_ASSOCIATIONS]:
        if code == _IA_TA:
            given.append((code, body[:4] + _joined([_status(_NO_ADDRESS)])))
        elif len(body) < _ASSOCIATION.size:
            continue
        elif code == _IA_PD:
            given.append((code, _association(body, [_status(_NO_PREFIX)])))
        elif free:
            free = False
            lease = _ADDRESS.pack(address.packed, LIFETIME, LIFETIME)
            stale = [x for x in _known(body) if x != address]
            gone = [(_IA_ADDRESS, _ADDRESS.pack(x.packed, 0, 0)) for x in stale]
            given.append((code, _association(body, [(_IA_ADDRESS, lease), *gone])))
        else:
            given.append((code, _association(body, [_status(_NO_ADDRESS)])))
    return given


def _association(asked: bytes, options: list[Option]) -> bytes:
    times = (LIFETIME // 2, LIFETIME * 4 // 5)
    return _ASSOCIATION.pack(asked[:4], *times) + _joined(options)


def _addresses(question: Question) -> list[IPv6Address]:
    bodies = (body for code, body in question.options if code == _IA_NA)
    return [address for body in bodies for address in _known(body)]


def _known(association: bytes) -> list[IPv6Address]:
    """Return the addresses that a client says it has; none if it is malformed."""
    try:
        options = list(_options(association[_ASSOCIATION.size :]))
    except ValueError:
        return []
    bodies = (x for code, x in options if code == _IA_ADDRESS)
    whole = [x for x in bodies if len(x) >= _ADDRESS.size]
    return [IPv6Address(x[:16]) for x in whole[:_MAX_ASSOCIATIONS]]


def _status(code: int) -> Option:
    return _STATUS, code.to_bytes(2)


def _joined(options: list[Option]) -> bytes:
    return b"".join(_OPTION.pack(code, len(body)) + body for code, body in options)


def _message(
    question: Question, said: Kind, options: list[Option], place: Place
) -> bytes:
    client = question.first(_CLIENT_ID)
    resolvers = b"".join(each.packed for each in place.resolvers6)
    whole = [
        *([] if client is None else [(_CLIENT_ID, client)]),
        (_SERVER_ID, SERVER),
        *options,
        (_RESOLVERS, resolvers),
    ]
    return bytes((said,)) + question.transaction + _joined(whole)

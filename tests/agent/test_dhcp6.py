# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever a client asks by DHCPv6, it is told its own address or nothing."""

import struct
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.advertisement import advertisement
from agent.dhcp6 import SERVER, answer
from agent.plan import Place

OWN, OTHER = IPv6Address("fd09:24ef:4179::a89:5"), IPv6Address("fd09:24ef:4179::a89:6")
HERE = Place(bytes(6), IPv4Address("10.137.0.5"), OWN, IPv4Address("10.137.0.9"))
SOLICIT, ADVERTISE, REQUEST, CONFIRM, RENEW, REBIND, REPLY = range(1, 8)
RELEASE, DECLINE, INFORMATION = 8, 9, 11
CLIENT_ID, SERVER_ID, IA_NA, IA_TA, IA_ADDRESS = 1, 2, 3, 4, 5
PREFERENCE, STATUS, RAPID, DNS, IA_PD = 7, 13, 14, 23, 25
NO_ADDRESS, NOT_ON_LINK, NO_PREFIX = b"\0\2", b"\0\4", b"\0\6"
ME = (CLIENT_ID, b"\0\1some client")
US = (SERVER_ID, SERVER)
ID = b"iaid"
Option = tuple[int, bytes]


def options(*each: Option) -> bytes:
    return b"".join(struct.pack("!HH", code, len(x)) + x for code, x in each)


def question(kind: int, *each: Option) -> bytes:
    return bytes((kind,)) + b"xyz" + options(*each)


def association(*known: IPv6Address, code: int = IA_NA) -> Option:
    addresses = ((IA_ADDRESS, x.packed + struct.pack("!II", 9, 9)) for x in known)
    return code, ID + bytes(8) + options(*addresses)


def split(untrusted: bytes) -> Iterator[Option]:
    at = 0
    while at < len(untrusted):
        code, size = struct.unpack_from("!HH", untrusted, at)
        at += 4 + size
        assert at <= len(untrusted)
        yield code, untrusted[at - size : at]


def told(untrusted: bytes) -> tuple[int, list[Option]]:
    said = answer(untrusted, HERE)
    assert said is not None
    assert said[1:4] == b"xyz"
    found = list(split(said[4:]))
    assert (SERVER_ID, SERVER) in found
    return said[0], found


def given_in(body: bytes) -> dict[IPv6Address, int]:
    """Return the addresses of an association, and for how long."""
    assert body[:4] == ID
    inner = [x for code, x in split(body[12:]) if code == IA_ADDRESS]
    return {IPv6Address(x[:16]): struct.unpack("!I", x[20:24])[0] for x in inner}


@pytest.mark.parametrize("kind", [SOLICIT, REQUEST, RENEW, REBIND])
def test_whoever_asks_is_given_its_own_and_loses_any_other(kind: int) -> None:
    us = [US] if kind in {REQUEST, RENEW} else []
    said, found = told(question(kind, ME, *us, association(OTHER)))

    assert said == (ADVERTISE if kind == SOLICIT else REPLY)
    assert given_in(dict(found)[IA_NA]) == {OWN: 3600, OTHER: 0}
    assert ME in found
    resolvers = (IPv6Address(f"fd09:24ef:4179::a8b:{n}").packed for n in (1, 2))
    assert dict(found)[DNS] == b"".join(resolvers)


def test_who_is_in_a_hurry_needs_one_answer() -> None:
    said, found = told(question(SOLICIT, ME, (RAPID, b""), association()))

    assert said == REPLY
    assert (RAPID, b"") in found
    assert (PREFERENCE, b"\xff") not in found
    assert given_in(dict(found)[IA_NA]) == {OWN: 3600}


def test_there_is_one_address_and_no_prefix() -> None:
    asked = [association(), association(), association(code=IA_PD), (IA_TA, ID)]
    _, found = told(question(SOLICIT, ME, *asked))

    inner: dict[int, list[dict[int, bytes]]] = {}
    for code, body in found:
        if code in {IA_NA, IA_PD, IA_TA}:
            start = 4 if code == IA_TA else 12
            inner.setdefault(code, []).append(dict(split(body[start:])))
    assert IA_ADDRESS in inner[IA_NA][0]
    assert inner[IA_NA][1] == {STATUS: NO_ADDRESS}
    assert inner[IA_PD] == [{STATUS: NO_PREFIX}]
    assert inner[IA_TA] == [{STATUS: NO_ADDRESS}]


@pytest.mark.parametrize(("known", "status"), [(OWN, b"\0\0"), (OTHER, NOT_ON_LINK)])
def test_who_moved_here_is_told_whether_its_address_is_right(
    known: IPv6Address, status: bytes
) -> None:
    _, found = told(question(CONFIRM, ME, association(known)))

    assert dict(found)[STATUS] == status


def test_who_has_an_address_may_ask_for_the_rest() -> None:
    _, found = told(question(INFORMATION))

    assert DNS in dict(found)
    assert IA_NA not in dict(found)


@pytest.mark.parametrize("kind", [RELEASE, DECLINE])
def test_what_is_given_back_is_noted(kind: int) -> None:
    assert dict(told(question(kind, ME, US, association(OWN)))[1])[STATUS] == b"\0\0"


@pytest.mark.parametrize(
    "untrusted",
    [
        b"",
        b"\1xy",
        question(SOLICIT, association()),
        question(SOLICIT, (CLIENT_ID, b""), association()),
        question(SOLICIT, (CLIENT_ID, b"x" * 131), association()),
        question(SOLICIT, ME, US, association()),
        question(REQUEST, ME, association()),
        question(REQUEST, ME, (SERVER_ID, b"\0\3else"), association()),
        question(INFORMATION, (SERVER_ID, b"\0\3else")),
        question(CONFIRM, ME, association()),
        question(ADVERTISE, ME, US, association(OWN)),
        question(REPLY, ME, US, association(OWN)),
        question(12, ME, association()),
        question(0, ME, association()),
        question(SOLICIT, ME, association())[:-1],
        question(SOLICIT, ME, association()) + b"\0",
    ],
    ids=str,
)
def test_anything_else_is_not_answered(untrusted: bytes) -> None:
    assert answer(question(SOLICIT, ME, association()), HERE) is not None
    assert answer(untrusted, HERE) is None


def test_a_client_without_ipv6_is_not_answered() -> None:
    asked = question(SOLICIT, ME, association())

    assert answer(asked, replace(HERE, ip6=None)) is None


OPTION = st.one_of(
    st.tuples(st.integers(0, 30), st.binary(max_size=40)),
    st.sampled_from([ME, US, association(OTHER), association(OWN, OTHER)]),
)
QUESTIONS = st.builds(
    lambda kind, each, cut: question(kind, ME, *each)[: cut or None],
    st.integers(0, 14),
    st.lists(OPTION, max_size=12),
    st.just(0) | st.integers(4, 200),
)


@given(untrusted=st.binary(max_size=300) | QUESTIONS)
def test_no_message_at_all_gets_another_address(untrusted: bytes) -> None:
    said = answer(untrusted, HERE)

    for code, body in split((said or bytes(4))[4:]):
        if code == IA_NA:
            inner = [x for kind, x in split(body[12:]) if kind == IA_ADDRESS]
            alive = {IPv6Address(x[:16]) for x in inner if any(x[20:24])}
            assert alive <= {OWN}
    assert len(said or b"") < 1500


def test_a_router_sends_its_clients_to_dhcp() -> None:
    """RFC 4861, 4.2: no prefix, so nobody makes an address up."""
    found = advertisement(HERE)

    assert found[:4] == bytes((134, 0, 0, 0))
    assert found[5] == 0xC0
    assert struct.unpack("!H", found[6:8])[0] == 1800
    assert found[16:24] == bytes((1, 1)) + bytes.fromhex("feffffffffff")
    assert found[24:26] == bytes((25, 5))
    assert len(found) == 24 + 40

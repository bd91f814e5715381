# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever a client asks by DHCP, it is told its own address or nothing."""

import struct
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.dhcp import Answer, answer
from agent.plan import Place, place
from rules.facts import Client

MAC = bytes.fromhex("00163e5e6c00")
OWN, GATEWAY, OTHER = map(IPv4Address, ("10.137.0.5", "10.137.0.9", "10.137.0.6"))
HERE = Place(MAC, OWN, IPv6Address("fd09::5"), GATEWAY)
DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE, INFORM = range(1, 9)
MASK, ROUTER, DNS, ASKED, LEASE, KIND, SERVER, WANTED = 1, 3, 6, 50, 51, 53, 54, 55
ROUTES, OLD_ROUTES, CLIENT_ID = 121, 249, 61
NOBODY = IPv4Address(0)


def question(
    kind: int,
    options: dict[int, bytes] | None = None,
    *,
    has: IPv4Address = NOBODY,
    mac: bytes = MAC,
    relay: bytes = bytes(4),
) -> bytes:
    header = struct.pack("!4BIHH4s", 1, 1, 6, 0, 0x1234, 0, 0, has.packed)
    header += bytes(8) + relay + mac.ljust(16, b"\0") + bytes(192)
    header += bytes((99, 130, 83, 99))
    every = {KIND: bytes((kind,))} | (options or {})
    body = b"".join(bytes((code, len(x))) + x for code, x in every.items())
    return header + b"\0" + body + b"\xff"


def read(message: bytes) -> dict[int, bytes]:
    found, at = {}, 240
    while message[at] != 255:
        code, size = message[at], message[at + 1]
        found[code] = message[at + 2 : at + 2 + size]
        at += 2 + size
    return found


def told(untrusted: bytes, here: Place = HERE) -> tuple[int, IPv4Address, Answer]:
    said = answer(untrusted, here)
    assert said is not None
    address = IPv4Address(said.message[16:20])
    return read(said.message)[KIND][0], address, said


def test_who_looks_for_servers_is_offered_its_own_address() -> None:
    kind, address, said = told(question(DISCOVER, {ASKED: OTHER.packed}))

    assert (kind, address, said.to) == (OFFER, OWN, None)
    assert said.message[:8] == struct.pack("!4BI", 2, 1, 6, 0, 0x1234)
    assert said.message[28:34] == MAC
    assert len(said.message) >= 300


def test_the_link_has_nobody_but_the_gateway() -> None:
    """RFC 3442: the gateway is on the link, all else is behind it."""
    wanted = {WANTED: bytes((MASK, ROUTER, ROUTES)), CLIENT_ID: b"\1me"}
    found = read(told(question(DISCOVER, wanted))[2].message)

    assert found[MASK] == b"\xff\xff\xff\xff"
    assert found[ROUTER] == GATEWAY.packed
    assert found[ROUTES] == (
        b"\x20" + GATEWAY.packed + bytes(4) + b"\x00" + GATEWAY.packed
    )
    assert OLD_ROUTES not in found
    assert found[DNS] == bytes((10, 139, 1, 1, 10, 139, 1, 2))
    assert found[CLIENT_ID] == b"\1me"
    assert int.from_bytes(found[LEASE]) == 3600
    assert list(found).index(MASK) < list(found).index(ROUTER)


def test_old_windows_has_the_routes_under_its_number() -> None:
    found = read(told(question(DISCOVER, {WANTED: bytes((OLD_ROUTES,))}))[2].message)

    assert ROUTES not in found
    assert found[OLD_ROUTES].startswith(b"\x20" + GATEWAY.packed)


@pytest.mark.parametrize(
    ("asked", "has", "kind"),
    [
        (OWN, NOBODY, ACK),
        (OTHER, NOBODY, NAK),
        (None, OWN, ACK),
        (None, OTHER, NAK),
        (None, NOBODY, NAK),
    ],
)
def test_a_request_for_another_address_is_refused(
    asked: IPv4Address | None, has: IPv4Address, kind: int
) -> None:
    options = {} if asked is None else {ASKED: asked.packed}
    found, address, said = told(question(REQUEST, options, has=has))

    assert found == kind
    assert address == (OWN if kind == ACK else NOBODY)
    # Only who has its address already hears what is sent to it.
    assert said.to == (OWN if kind == ACK and has == OWN else None)


def test_who_chose_another_server_is_not_answered() -> None:
    chosen = {ASKED: OWN.packed, SERVER: OTHER.packed}

    assert answer(question(REQUEST, chosen), HERE) is None
    assert told(question(REQUEST, chosen | {SERVER: GATEWAY.packed}))[0] == ACK


def test_who_has_an_address_may_ask_for_the_rest() -> None:
    kind, address, said = told(question(INFORM, has=OWN))

    assert (kind, address, said.to) == (ACK, NOBODY, OWN)
    assert LEASE not in read(said.message)
    assert answer(question(INFORM, has=OTHER), HERE) is None


@pytest.mark.parametrize(
    "untrusted",
    [
        b"",
        question(DISCOVER)[:239],
        question(DISCOVER, mac=bytes.fromhex("00163e5e6c01")),
        question(DISCOVER, relay=OTHER.packed),
        question(OFFER),
        question(ACK),
        question(NAK),
        question(RELEASE, has=OWN),
        question(DECLINE),
        question(0),
        question(DISCOVER)[:-5],
        b"\2" + question(DISCOVER)[1:],
        question(DISCOVER).replace(b"\x63\x82\x53\x63", b"\x63\x82\x53\x64"),
    ],
    ids=str,
)
def test_anything_else_is_not_answered(untrusted: bytes) -> None:
    assert answer(question(DISCOVER), HERE) is not None
    assert answer(untrusted, HERE) is None


def test_without_a_gateway_nobody_is_answered() -> None:
    assert answer(question(DISCOVER), replace(HERE, gateway=None)) is None


def test_the_gateway_is_the_first_that_is_one_of_ipv4() -> None:
    client = Client("vif3.0", 13, "00:16:3e:5e:6c:00", OWN, HERE.ip6)

    assert place(client, (IPv6Address("fd09::9"), GATEWAY, OTHER)) == HERE
    assert place(client, ()).gateway is None


OPTIONS = st.dictionaries(st.integers(1, 254), st.binary(max_size=40), max_size=8)
QUESTIONS = st.builds(
    lambda kind, options, has, tail, cut: (
        question(kind, options, has=IPv4Address(has)) + tail
    )[:cut],
    kind=st.integers(0, 255),
    options=OPTIONS,
    has=st.sampled_from([0, int(OWN), int(OTHER)]),
    tail=st.binary(max_size=20),
    cut=st.integers(236, 400),
)


@given(untrusted=st.binary(max_size=600) | QUESTIONS)
def test_no_message_at_all_gets_another_address(untrusted: bytes) -> None:
    said = answer(untrusted, HERE)

    if said is not None:
        assert IPv4Address(said.message[16:20]) in {OWN, NOBODY}
        assert said.to in {OWN, None}
        assert len(said.message) < 1500
        assert read(said.message)[KIND][0] in {OFFER, ACK, NAK}

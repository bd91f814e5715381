# SPDX-License-Identifier: GPL-2.0-or-later
"""A tunnel has the size that fits, and resolvers that are inside of it."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from rules.internal import INTERNAL
from rules.routing import ANY
from tests.vpn.openvpn_room import FACTS
from tests.vpn.profiles import BLOCKS, LINES
from vpn.endpoints import TCP, Target
from vpn.openvpn_profile import parse
from vpn.openvpn_pushed import Pushed
from vpn.openvpn_tunnel import overhead_of, resolvers_of, room, tunnel_of

TARGET = Target(ip_address("203.0.113.1"), 1194)
SIX = Target(ip_address("2001:db8::1"), 1194)
FOUR = Pushed(frozenset({ip_address("10.8.0.2")}))
BOTH = replace(FOUR, own=FOUR.own | {ip_address("fd00::2")})


def overhead(*lines: str, cipher: str = "AES-256-GCM") -> int:
    text = LINES + "\n".join(lines) + "\n" + BLOCKS
    return overhead_of(parse(text.encode()), cipher)


def test_a_packet_of_the_tunnel_fits_into_one_of_the_uplink() -> None:
    """What OpenVPN adds in AES-256-GCM is 24 bytes, 28 in newer formats."""
    tunnel = tunnel_of(("ovpn0", 7), FOUR, room(TARGET, 1500), overhead())
    assert tunnel.mtu == 1500 - 20 - 8 - 28
    assert tunnel.networks == {ANY[version] for version in ANY if version.value == 32}


@pytest.mark.parametrize("cipher", ["", "AES-256-CBC"])
def test_another_cipher_takes_more(cipher: str) -> None:
    """Also one that is not known yet."""
    assert overhead(cipher=cipher) > overhead()
    assert overhead("fragment 1300", "comp-lzo no") > overhead()


def test_the_other_sizes() -> None:
    assert room(SIX, 1500) == 1500 - 40 - 8
    assert (
        tunnel_of(("x", 1), FOUR, room(replace(TARGET, proto=TCP), 1500), 28).mtu
        == 1500
    )
    assert tunnel_of(("x", 1), replace(FOUR, mtu=1300), 1472, 28).mtu == 1300
    assert tunnel_of(("x", 1), FOUR, 600, 104).mtu == 576
    assert tunnel_of(("x", 1), BOTH, 600, 104).mtu == 1280
    assert tunnel_of(("x", 1), BOTH, 1472, 28).networks == set(ANY.values())


@pytest.mark.parametrize(
    "outside",
    [
        "203.0.113.1",  # the server
        "203.0.113.2",  # this domain
        "203.0.113.77",  # at the uplink
        "10.137.0.5",  # a client
        "10.137.0.9",  # this domain, towards clients
        "10.139.1.1",  # what clients write for whatever resolver there is
        "192.0.2.53",  # asked over the uplink
    ],
)
def test_a_resolver_outside_of_the_tunnel_is_left_out(outside: str) -> None:
    """Clients would be led to it and refused, and our own questions into the tunnel."""
    inside = ip_address("10.8.0.1")
    facts = replace(
        FACTS, internal=INTERNAL, resolvers=frozenset({ip_address("192.0.2.53")})
    )
    pushed = replace(FOUR, resolvers=(ip_address(outside), inside))
    assert resolvers_of(pushed, facts, TARGET) == (inside,)

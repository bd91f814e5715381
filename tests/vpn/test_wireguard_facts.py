# SPDX-License-Identifier: GPL-2.0-or-later
"""The size of packets in the tunnel fits what is around them."""

from ipaddress import ip_address, ip_interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpn import wireguard_facts
from vpn.endpoints import Endpoint, Target
from vpn.mtu import LEAST4, LEAST6
from vpn.wireguard_facts import fitting
from vpn.wireguard_profile import Key, Peer, Profile

V4 = Target(ip_address("203.0.113.1"), 51820)
V6 = Target(ip_address("2001:db8::1"), 51820)
PEER = Peer(Key(b"\2" * 32), Endpoint(V4.address, V4.port), ())
ONLY4 = Profile(Key(b"\1" * 32), (ip_interface("10.64.0.2/32"),), (PEER,))
BOTH = Profile(
    Key(b"\1" * 32), (*ONLY4.addresses, ip_interface("fd64::2/128")), (PEER,)
)


@pytest.mark.parametrize(
    ("target", "path", "mtu"),
    [(V4, 1500, 1440), (V6, 1500, 1408), (V4, 1380, 1312), (V4, 1280, 1216)],
)
def test_a_packet_filled_up_by_the_server_fits_the_way(
    monkeypatch: pytest.MonkeyPatch, target: Target, path: int, mtu: int
) -> None:
    monkeypatch.setattr(wireguard_facts, "path_mtu", lambda _: path)

    assert fitting(ONLY4, target) == mtu


@given(path=st.integers(700, 9000), target=st.sampled_from([V4, V6]))
def test_whatever_the_way_its_packets_fit_unless_ipv6_needs_more(
    path: int, target: Target
) -> None:
    outside = 28 if target is V4 else 48
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(wireguard_facts, "path_mtu", lambda _: path)
        for profile, least in ((ONLY4, LEAST4), (BOTH, LEAST6)):
            mtu = fitting(profile, target)
            filled = -(-mtu // 16) * 16
            assert mtu >= least
            assert filled + 32 + outside <= path or mtu == least


def test_before_a_server_is_known_it_is_what_always_fits() -> None:
    assert fitting(ONLY4, None) == 1408

# SPDX-License-Identifier: GPL-2.0-or-later
"""A packet of the tunnel's MTU fits, with all that is put around it."""

from collections.abc import Callable
from ipaddress import ip_address

import pytest

from vpn.endpoints import Target
from vpn.mtu import ETHERNET, LEAST4, LEAST6, outer, path_mtu, segment, tunnel_mtu

SERVER = ip_address("203.0.113.1")


@pytest.mark.parametrize(
    ("path", "overhead", "given", "mtu"),
    [
        (1500, 60, None, 1440),
        (1500, 80, None, 1420),
        (1500, 60, 1380, 1380),
        (1500, 60, 9000, 1440),
        (1280, 60, None, LEAST6),
        (1 << 20, 60, None, 65535),
    ],
)
def test_the_mtu_is_what_fits_and_the_profile_can_only_lower_it(
    path: int, overhead: int, given: int | None, mtu: int
) -> None:
    assert tunnel_mtu(path, overhead, given) == mtu


def test_without_ipv6_inside_a_narrow_way_is_used_as_it_is() -> None:
    assert tunnel_mtu(1280, 60, least=LEAST4) == 1220


def test_the_outer_headers_depend_on_the_family() -> None:
    assert outer(SERVER) == 28
    assert outer(ip_address("2001:db8::1")) == 48


def test_a_segment_leaves_room_for_both_headers() -> None:
    assert segment(1420) == 1380


@pytest.mark.kernel
@pytest.mark.usefixtures("net")
def test_the_way_to_a_server_is_as_wide_as_its_narrowest_known_link(
    ip: Callable[[str], str],
) -> None:
    """What a router said is in the kernel's memory of the way, as a route's MTU."""
    ip("link add eth0 type veth peer name far")
    ip("address add 198.51.100.1/24 dev eth0")
    ip("link set eth0 mtu 1400 up")
    ip("link set far up")
    ip("route add default via 198.51.100.254")
    assert path_mtu(Target(SERVER, 51820)) == 1400

    ip("route replace 203.0.113.1 via 198.51.100.254 mtu 1300")

    assert path_mtu(Target(SERVER, 51820)) == 1300


@pytest.mark.kernel
@pytest.mark.usefixtures("net")
def test_without_a_way_the_usual_size_is_taken() -> None:
    assert path_mtu(Target(SERVER, 51820)) == ETHERNET

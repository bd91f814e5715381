# SPDX-License-Identifier: GPL-2.0-or-later
"""What a server pushed is data: addresses, resolvers and a size, all checked."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpn.openvpn_pushed import Pushed, read

OWN = {"ifconfig_local": "10.8.0.2"}


def address(*texts: str) -> frozenset[object]:
    return frozenset(map(ip_address, texts))


def test_what_a_server_pushes_is_read() -> None:
    """Everything else that it pushed is not looked at."""
    pushed = read(
        {
            "ifconfig_local": "10.8.0.2",
            "ifconfig_netmask": "255.255.255.0",
            "ifconfig_ipv6_local": "fd00::2",
            "ifconfig_ipv6_netbits": "64",
            "tun_mtu": "1400",
            "foreign_option_1": "dhcp-option DNS 10.8.0.1",
            "foreign_option_2": "dhcp-option DOMAIN example.com",
            "foreign_option_3": "dhcp-option DNS6 fd00::1",
            "foreign_option_4": "dhcp-option DNS 10.8.0.1",
            "route_network_1": "10.137.0.0",
            "config": "/etc/passwd",
        }
    )
    assert pushed.own == address("10.8.0.2", "fd00::2")
    assert pushed.resolvers == (ip_address("10.8.0.1"), ip_address("fd00::1"))
    assert pushed.mtu == 1400


@pytest.mark.parametrize(
    "resolver",
    [
        "127.0.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "169.254.1.1",
        "10.8.0.2",  # the tunnel's own
        "fd00::1",  # of a family that the tunnel has not
        "::ffff:10.8.0.1",
        "10.8.0.1; reboot",
        "x" * 100,
        "",
    ],
)
def test_a_resolver_that_cannot_be_one_is_left_out(resolver: str) -> None:
    options = {
        "foreign_option_1": f"dhcp-option DNS {resolver}",
        "foreign_option_2": "dhcp-option DNS 10.8.0.1",
    }
    assert read({**OWN, **options}).resolvers == (ip_address("10.8.0.1"),)


@pytest.mark.parametrize(
    "own", ["", "x", "127.0.0.1", "224.0.0.1", "fd00::1", "10.8.0.2/8"]
)
def test_an_address_that_cannot_be_one_is_none(own: str) -> None:
    assert read({"ifconfig_local": own}) == Pushed()


def test_an_address_of_ipv6_may_have_its_length() -> None:
    assert read({"ifconfig_ipv6_local": "fd00::2/64"}).own == address("fd00::2")


@pytest.mark.parametrize(
    ("said", "mtu"),
    [("1500", 1500), ("1", 576), ("99999", 65535), ("-1", 1500), ("", 1500)],
)
def test_a_size_is_within_reason(said: str, mtu: int) -> None:
    assert read({"tun_mtu": said}).mtu == mtu


NAMES = st.sampled_from(
    ["ifconfig_local", "ifconfig_ipv6_local", "tun_mtu", "foreign_option_1"]
)
VALUES = st.text() | st.ip_addresses().map(str) | st.integers().map(str)
OPTIONS = VALUES.map("dhcp-option DNS {}".format)


@given(st.dictionaries(NAMES, VALUES | OPTIONS))
def test_anything_pushed_is_read_to_something_usable(said: dict[str, str]) -> None:
    pushed = read(said)
    assert 576 <= pushed.mtu <= 65535
    assert len({one.version for one in pushed.own}) == len(pushed.own)
    for one in (*pushed.own, *pushed.resolvers):
        assert not any((one.is_loopback, one.is_multicast, one.is_unspecified))

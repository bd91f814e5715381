# SPDX-License-Identifier: GPL-2.0-or-later
"""Hypothesis strategies for rules: few enough values that they often meet."""

from ipaddress import IPv4Network, IPv6Network, ip_address

from hypothesis import strategies as st

from rules.model import (
    MAX_EXPIRE,
    Action,
    Address,
    AddressRange,
    Anywhere,
    Name,
    Network,
    Ports,
    Proto,
    Rule,
    SpecialTarget,
)

NETWORKS: tuple[AddressRange, ...] = (
    IPv4Network("0.0.0.0/0"),
    IPv4Network("192.0.2.0/24"),
    IPv4Network("192.0.2.128/31"),
    IPv4Network("10.139.1.1/32"),
    IPv6Network("::/0"),
    IPv6Network("2001:db8::/32"),
    IPv6Network("2001:db8:0:1::/64"),
    IPv6Network("fd09:24ef:4179::a8b:2/128"),
)
NAMES = ("a.example", "b.example", "unknown.example")
RESOLVERS = (
    "10.139.1.1",
    "10.139.1.2",
    "192.0.2.128",
    "fd09:24ef:4179::a8b:1",
    "fd09:24ef:4179::a8b:2",
)
EDGE_PORTS = (0, 1, 52, 53, 54, 79, 80, 443, 444, 65534, 65535)
ICMP_TYPES = (0, 1, 2, 3, 4, 5, 8, 11, 12, 127, 128, 129, 255)


def around(network: AddressRange) -> list[Address]:
    """Return the first and last address of a network, and their outer neighbours."""
    first, last = network.network_address, network.broadcast_address
    space = 2**network.max_prefixlen
    wanted = [int(first), int(last), int(first) - 1, int(last) + 1]
    kind = type(first)
    return [kind(number) for number in wanted if 0 <= number < space]


ADDRESSES = [
    *(edge for network in NETWORKS for edge in around(network)),
    *map(ip_address, RESOLVERS),
]
addresses = st.sampled_from(ADDRESSES)
ports = st.lists(st.sampled_from(EDGE_PORTS), min_size=2, max_size=2).map(
    lambda found: Ports(min(found), max(found))
)
comments = st.text("aZ09:;,./-_[] ", min_size=1, max_size=20)
actions = st.sampled_from(Action)


@st.composite
def rules(draw: st.DrawFn, *, ports_alone: bool = False) -> Rule:
    """Draw any rule; ``ports_alone`` adds what only QubesDB can say."""
    proto = draw(st.none() | st.sampled_from(Proto))
    with_ports = proto in {Proto.TCP, Proto.UDP} or (ports_alone and proto is None)
    icmp = proto is Proto.ICMP
    return Rule(
        action=draw(actions),
        destination=draw(
            st.just(Anywhere())
            | st.sampled_from(NETWORKS).map(Network)
            | st.sampled_from(NAMES).map(Name)
        ),
        proto=proto,
        special=None if icmp else draw(st.none() | st.just(SpecialTarget.DNS)),
        ports=draw(st.none() | ports) if with_ports else None,
        icmp_type=draw(st.none() | st.sampled_from(ICMP_TYPES)) if icmp else None,
        expire=draw(st.none() | st.sampled_from((0, 999, 1000, 1001, MAX_EXPIRE))),
        comment=draw(st.none() | comments),
    )

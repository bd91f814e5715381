# SPDX-License-Identifier: GPL-2.0-or-later
"""The resolved list says what `decide` says, in numbers alone."""

from ipaddress import IPv4Network, IPv6Network, ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules.decide import Packet, decide
from rules.ground import Ground, Match, ground
from rules.model import Action, Address, Family, Policy, Ports, Refused, family
from rules.parse import parse_text
from tests.rules.rule_strategies import (
    ADDRESSES,
    EDGE_PORTS,
    ICMP_TYPES,
    NAMES,
    RESOLVERS,
    actions,
    addresses,
    rules,
)

NOW = 1000
RESOLVED = frozenset(map(ip_address, RESOLVERS))
policies = st.builds(
    Policy, st.lists(rules(ports_alone=True), max_size=6).map(tuple), actions
)
names = st.dictionaries(
    st.sampled_from(NAMES[:2]), st.frozensets(addresses, max_size=4)
)
resolvers = st.frozensets(st.sampled_from(sorted(map(ip_address, RESOLVERS), key=int)))
packets = st.builds(
    Packet, addresses, st.sampled_from((6, 17)), st.sampled_from(EDGE_PORTS)
) | st.builds(
    Packet,
    addresses,
    st.sampled_from((1, 47, 58, 132)),
    st.none(),
    st.none() | st.sampled_from(ICMP_TYPES),
)


def covers(match: Match, packet: Packet) -> bool:
    """Tell whether a match matches: what the compiler has to say in its words."""
    return (
        (match.networks is None or any(packet.dst in net for net in match.networks))
        and (match.protocols is None or packet.proto in match.protocols)
        and (match.icmp_types is None or packet.icmp_type in match.icmp_types)
        and (
            match.ports is None
            or packet.port in range(match.ports.first, match.ports.last + 1)
        )
    )


def first(found: Ground, packet: Packet) -> tuple[Action, int | None]:
    """Return the action and the rule index of the first match."""
    for match in found.matches:
        if covers(match, packet):
            return match.action, match.source
    return found.default, None


@settings(max_examples=600)
@given(policies, st.lists(packets, min_size=1), names, resolvers)
def test_the_first_match_is_what_decide_says(
    policy: Policy,
    sent: list[Packet],
    known: dict[str, frozenset[Address]],
    dns: frozenset[Address],
) -> None:
    """The same rule and the same action, for every packet of either family."""
    grounds = {v: ground(policy, v, known, dns, NOW) for v in Family}
    for packet in sent:
        decision = decide(policy, packet, known, dns, NOW)
        found = first(grounds[family(packet.dst)], packet)
        assert found == (decision.action, decision.rule)


@given(policies, names, resolvers, st.sampled_from(Family))
def test_every_match_can_match(
    policy: Policy,
    known: dict[str, frozenset[Address]],
    dns: frozenset[Address],
    version: Family,
) -> None:
    """What is left has no empty field, one family, and networks that are disjoint."""
    found = ground(policy, version, known, dns, NOW)
    assert [m.source for m in found.matches] == sorted(m.source for m in found.matches)
    for match in found.matches:
        assert match.networks != ()
        assert match.protocols != frozenset()
        assert match.icmp_types != frozenset()
        networks = match.networks or ()
        for number, network in enumerate(networks):
            assert family(network) is version
            assert network.prefixlen > 0
            assert not any(network.overlaps(other) for other in networks[:number])
        if match.ports is not None:
            assert match.protocols is not None
            assert match.protocols <= {6, 17}


def grounded(text: str, version: Family) -> list[Match]:
    """Ground a list of one rule."""
    known = {
        "two.example": frozenset(map(ip_address, ("192.0.2.9", "192.0.2.10", "::9"))),
        "dns.example": frozenset(map(ip_address, ("192.0.2.9", "10.139.1.1"))),
    }
    policy = Policy((parse_text(text, now=0),))
    return list(ground(policy, version, known, RESOLVED, NOW).matches)


HOSTS = (IPv4Network("192.0.2.9/32"), IPv4Network("192.0.2.10/32"))
DNS6 = tuple(
    IPv6Network(host) for host in ("fd09:24ef:4179::a8b:1", "fd09:24ef:4179::a8b:2")
)
BOTH = frozenset({6, 17})


@pytest.mark.parametrize(
    ("text", "version", "expected"),
    [
        ("accept", Family.IPV4, (None, None, None, None)),
        ("accept dst4=0.0.0.0/0", Family.IPV4, (None, None, None, None)),
        ("accept two.example", Family.IPV4, (HOSTS, None, None, None)),
        (
            "accept specialtarget=dns",
            Family.IPV6,
            (DNS6, BOTH, Ports(53, 53), None),
        ),
        (
            "accept dns.example specialtarget=dns",
            Family.IPV4,
            ((IPv4Network("10.139.1.1/32"),), BOTH, Ports(53, 53), None),
        ),
        (
            "accept specialtarget=dns proto=tcp dstports=1-99",
            Family.IPV6,
            (DNS6, frozenset({6}), Ports(53, 53), None),
        ),
        (
            "accept proto=icmp icmptype=3",
            Family.IPV6,
            (None, frozenset({58}), None, frozenset({1, 2})),
        ),
    ],
)
def test_a_rule_becomes_numbers(
    text: str, version: Family, expected: tuple[object, ...]
) -> None:
    """Names, roles and ICMP types are looked up; a prefix of length 0 is anywhere."""
    (match,) = grounded(text, version)
    found = (match.networks, match.protocols, match.ports, match.icmp_types)
    assert found == expected


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("drop dst4=0.0.0.0/0", Family.IPV6),
        ("drop dst6=::/0", Family.IPV4),
        ("drop unknown.example", Family.IPV4),
        ("drop proto=icmp icmptype=5", Family.IPV6),
        ("drop specialtarget=dns proto=udp dstports=54-99", Family.IPV4),
        ("drop 192.0.2.200 specialtarget=dns", Family.IPV4),
        ("drop expire=1000", Family.IPV4),
    ],
)
def test_a_rule_that_can_match_nothing_is_left_out(text: str, version: Family) -> None:
    """The positive control: its opposite, in the test above, is not."""
    assert grounded(text, version) == []


def test_a_refused_list_is_an_empty_one_that_drops() -> None:
    """Nothing of it is kept."""
    for version in Family:
        found = ground(Refused("junk"), version, {}, RESOLVED, NOW)
        assert found == Ground((), Action.DROP)


def test_the_boundaries_are_among_the_addresses_tried() -> None:
    """The property above looks at both sides of each edge."""
    for edge in ("192.0.1.255", "192.0.2.0", "192.0.2.130", "2001:db9::"):
        assert ip_address(edge) in ADDRESSES

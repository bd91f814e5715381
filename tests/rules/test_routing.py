# SPDX-License-Identifier: GPL-2.0-or-later
"""What is forwarded goes where a client is or out by an uplink, or nowhere."""

from ipaddress import ip_address, ip_network

import pytest

from rules.facts import Client, Facts, Uplink
from rules.flows import BY_RULES, CLIENT_DNS, OWN_NAMES, OWN_TRAFFIC, PING, Allowed
from rules.model import Family, family
from rules.routing import (
    ANY,
    CLIENTS,
    MAIN,
    NEWEST,
    UPSTREAM,
    Route,
    Routing,
    Rule,
    routing,
)

OPEN = frozenset({PING, BY_RULES, CLIENT_DNS, OWN_TRAFFIC})
MAC = "00:16:3e:5e:6c:00"
A = Client("vif3.0", 13, MAC, ip_address("10.137.0.5"))  # type: ignore[arg-type]
B = Client(
    "vif4.0",
    14,
    MAC,
    ip_address("10.138.0.7"),  # type: ignore[arg-type]
    ip_address("fd09:24ef:4179::a8a:7"),  # type: ignore[arg-type]
)
LAN, LAN6 = ip_network("192.168.1.0/24"), ip_network("2001:db8:1::/64")
NEXT, SECOND, NEXT6 = map(ip_address, ("192.168.1.1", "192.168.1.2", "fe80::1"))
ETH0 = Uplink("eth0", 2, networks=frozenset({LAN}), gateways=(NEXT,))
ETH1 = Uplink("eth1", 3, networks=frozenset({LAN}), gateways=(SECOND,))
V4, V6 = Family.IPV4, Family.IPV6


def routes(facts: Facts, allowed: Allowed = OPEN) -> set[Route]:
    return set().union(*routing(allowed, facts).routes.values())


def upstream(facts: Facts) -> set[Route]:
    return {route for route in routes(facts) if route.table == UPSTREAM}


def test_without_anything_every_way_ends() -> None:
    assert routing(frozenset(), Facts()) == Routing(
        rules=frozenset(
            rule
            for version in Family
            for rule in (
                Rule(version, 90, CLIENTS),
                Rule(version, 100, MAIN, "lo"),
                Rule(version, 101, None, "lo"),
                Rule(version, 120, UPSTREAM),
                Rule(version, 121, None),
            )
        ),
        routes={},
    )


def test_what_an_uplink_sends_goes_to_clients_or_nowhere() -> None:
    rules = routing(OPEN, Facts(uplinks=(ETH0, ETH1))).rules

    for version in Family:
        for name in ("eth0", "eth1"):
            walk = sorted(
                (rule.priority, rule.table)
                for rule in rules
                if rule.family is version and rule.iif in {None, name}
            )
            assert walk[:2] == [(90, CLIENTS), (110, None)]


def test_only_what_this_domain_sends_looks_at_table_main() -> None:
    rules = routing(OPEN, Facts((A, B), (ETH0,))).rules

    assert {rule.iif for rule in rules if rule.table == MAIN} == {"lo"}


def test_the_number_of_rules_does_not_grow_with_the_clients() -> None:
    few, many = (
        routing(OPEN, Facts(clients, (ETH0,))).rules for clients in ((A,), (A, B) * 50)
    )

    assert few == many


def test_a_client_is_reached_by_its_addresses_in_every_state() -> None:
    wanted = {
        Route(CLIENTS, ip_network(A.ip), 13, metric=NEWEST - 2),
        Route(CLIENTS, ip_network(B.ip), 14, metric=NEWEST - 3),
        Route(CLIENTS, ip_network(str(B.ip6)), 14, metric=NEWEST - 3),
    }

    assert routes(Facts((A, B), (ETH0,)), frozenset({PING})) == wanted


def test_of_two_vifs_with_one_address_the_newer_wins() -> None:
    newer = Client("vif30.0", 40, MAC, A.ip)

    found = {r.index: r.metric for r in routes(Facts((A, newer)))}

    assert found[40] < found[13]


def test_the_newest_vif_there_can_be_has_a_metric() -> None:
    newest = Client(f"vif{NEWEST}.0", 40, MAC, A.ip)

    assert {route.metric for route in routes(Facts((newest,)))} == {1}


@pytest.mark.parametrize("flow", [PING, CLIENT_DNS, OWN_TRAFFIC, OWN_NAMES])
def test_without_rules_in_force_there_is_no_way_out(flow: object) -> None:
    allowed = frozenset({flow})

    assert routes(Facts(uplinks=(ETH0,)), allowed) == set()  # type: ignore[arg-type]


def test_an_uplink_leads_to_its_link_and_by_its_next_hop() -> None:
    assert upstream(Facts((A,), (ETH0,))) == {
        Route(UPSTREAM, LAN, 2, metric=1),
        Route(UPSTREAM, ANY[V4], 2, NEXT, metric=1),
    }


def test_each_version_has_its_own_next_hop() -> None:
    dual = Uplink("eth0", 2, networks=frozenset({LAN, LAN6}), gateways=(NEXT, NEXT6))

    assert upstream(Facts(uplinks=(dual,))) == {
        Route(UPSTREAM, LAN, 2, metric=1),
        Route(UPSTREAM, LAN6, 2, metric=1),
        Route(UPSTREAM, ANY[V4], 2, NEXT, metric=1),
        Route(UPSTREAM, ANY[V6], 2, NEXT6, metric=1),
    }


def test_of_several_next_hops_the_first_is_taken() -> None:
    found = upstream(Facts(uplinks=(Uplink("eth0", 2, gateways=(NEXT, SECOND)),)))

    assert found == {Route(UPSTREAM, ANY[V4], 2, NEXT, metric=1)}


def test_the_first_of_several_uplinks_is_preferred() -> None:
    found = upstream(Facts(uplinks=(ETH1, ETH0)))

    preferred = min((r for r in found if r.prefix == ANY[V4]), key=lambda r: r.metric)
    assert preferred.gateway == SECOND


def test_no_two_routes_want_the_same_place() -> None:
    """The kernel has room for one route of a table, prefix and metric."""
    dual = Uplink(
        "eth2",
        4,
        networks=frozenset({LAN, LAN6}),
        gateways=(NEXT, SECOND, NEXT6, ip_address("fe80::2")),
    )
    found = routes(Facts((A, B), (ETH0, ETH1, dual)))

    places = [(route.table, route.prefix, route.metric) for route in found]
    assert len(places) == len(set(places))


def test_every_ipv6_route_upstream_has_a_metric() -> None:
    """The kernel makes another number of 0 (IP6_RT_PRIO_USER)."""
    dual = Uplink("eth0", 2, networks=frozenset({LAN6}), gateways=(NEXT6,))

    found = upstream(Facts((B,), (dual,)))

    assert all(r.metric for r in found if family(r.prefix) is V6)

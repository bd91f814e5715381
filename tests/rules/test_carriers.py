# SPDX-License-Identifier: GPL-2.0-or-later
"""What a carrier's facts become; tests/kernel/test_carriers.py sends the packets."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from rules.carriers import CARRIER_TEXT, carrier_guard
from rules.constant import constant
from rules.facts import (
    Carried,
    Client,
    Facts,
    Gateway,
    Mark,
    Redirect,
    Tunnel,
    Uid,
    Uplink,
)
from rules.flows import (
    CARRIED,
    CONTROL_PORT,
    IN_TUNNEL,
    INTO_DAEMON,
    NAMES_IN_TUNNEL,
    Allowed,
)
from rules.guard import NETDEV_GUARD
from rules.objects import IP, IP6, Key, Map, Set
from rules.pace import USUAL
from rules.redirects import REDIRECT_TEXT
from rules.routing import UPSTREAM, routing
from rules.ruleset import closed, ruleset
from tests.rules.declarations import undeclared

EVERYTHING = frozenset({CARRIED, CONTROL_PORT, IN_TUNNEL, INTO_DAEMON, NAMES_IN_TUNNEL})
A4, A6 = ip_address("192.0.2.1"), ip_address("2001:db8::1")
CLIENT = Client(
    "vif1.0",
    22,
    "00:16:3e:5e:6c:00",
    ip_address("10.137.0.5"),  # type: ignore[arg-type]
    ip_address("fd09:24ef:4179::a89:5"),  # type: ignore[arg-type]
)
OWN = frozenset({ip_address("10.137.0.9"), ip_address("fd09:24ef:4179::a89:9")})
TUNNEL = Tunnel(
    "wg0",
    21,
    frozenset({ip_address("10.8.0.2")}),
    frozenset({ip_network("0.0.0.0/0")}),
    1380,
)
FACTS = Facts(
    clients=(CLIENT,),
    uplinks=(Uplink("eth0", 20, OWN, gateways=(ip_address("10.137.0.6"),)),),
    configured=True,
    kind=Gateway.PROXY,
    carried=frozenset(
        {
            Carried(Uid(7), 17, (A4, 51820)),
            Carried(Mark(0xCA6C), 17, (A6, 51821)),
            Carried(Uid(8), 6, None),
        }
    ),
    tunnel=TUNNEL,
    redirects={22: Redirect(9100, 9101, 9102, 9103)},
)
CONTENTS: dict[tuple[str, str], object] = {
    (IP, "by_uid"): {"7 . 192.0.2.1 . 17 . 51820"},
    (IP6, "by_uid"): frozenset(),
    (NETDEV_GUARD, "by_uid4"): {"7 . 192.0.2.1 . 17 . 51820"},
    (IP, "by_mark"): frozenset(),
    (IP6, "by_mark"): {"0xca6c . 2001:db8::1 . 17 . 51821"},
    (NETDEV_GUARD, "by_mark6"): {"0xca6c . 2001:db8::1 . 17 . 51821"},
    (IP, "any_by_uid"): {"8 . 6"},
    (NETDEV_GUARD, "any_by_uid6"): {"8 . 6"},
    (NETDEV_GUARD, "uplinks4"): {"20 . 10.137.0.9"},
    (NETDEV_GUARD, "uplinks6"): {"20 . fd09:24ef:4179::a89:9"},
    # Only the tunnel's own address leaves by the tunnel; by the uplink none.
    (NETDEV_GUARD, "own4"): {"21 . 10.8.0.2"},
    (NETDEV_GUARD, "own6"): frozenset(),
    (IP, "up"): {"21"},
    (IP6, "up"): frozenset(),
    (IP, "own"): {"20": "goto carried", "21": "goto own-names"},
    (IP6, "own"): {"20": "goto carried"},
    (IP, "clamp_out"): {"21": "1340"},
    (IP6, "clamp_in"): {"21": "1320"},
    (IP, "to_tcp"): {"22 . 10.137.0.5": "9100"},
    (IP, "to_socks"): {"22 . 10.137.0.5": "9102"},
    (IP6, "to_control"): {"22 . fd09:24ef:4179::a89:5": "9103"},
    (IP6, "to_dns"): {"22 . fd09:24ef:4179::a89:5": "9101"},
    (IP, "judged"): {"22 . 10.137.0.5": "goto q_10-137-0-5"},
}


def elements(where: tuple[str, str], allowed: Allowed, facts: Facts = FACTS) -> object:
    content = ruleset(allowed, facts)[Key(*where)]
    assert isinstance(content, Set | Map)
    return content.elements


@pytest.mark.parametrize("where", CONTENTS, ids=" ".join)
def test_facts_become_elements(where: tuple[str, str]) -> None:
    assert elements(where, EVERYTHING) == CONTENTS[where]


def test_a_state_that_allows_nothing_has_only_addresses_and_judges() -> None:
    left = {
        (key.table, key.name)
        for key, content in ruleset(frozenset(), FACTS).items()
        if isinstance(content, Set | Map) and content.elements
    }

    assert left & CONTENTS.keys() == {
        (NETDEV_GUARD, "uplinks4"),
        (NETDEV_GUARD, "uplinks6"),
        (NETDEV_GUARD, "own4"),
        (IP, "judged"),
    }


def test_closed_is_every_set_of_a_carrier_and_nothing_in_it() -> None:
    shut = closed(Gateway.PROXY)

    assert shut.keys() == ruleset(EVERYTHING, FACTS).keys()
    assert not any(o.elements for o in shut.values() if isinstance(o, Set | Map))


def test_every_object_is_declared_as_the_constant_rules_declare_it() -> None:
    assert undeclared(Gateway.PROXY, ruleset(EVERYTHING, FACTS)) == set()


def test_a_mark_is_nobody_without_an_endpoint() -> None:
    """R6: whoever has CAP_NET_RAW can set it."""
    facts = Facts(kind=Gateway.PROXY, carried=frozenset({Carried(Mark(1), 17, None)}))
    with pytest.raises(ValueError, match="expected an endpoint"):
        ruleset(EVERYTHING, facts)


def test_clients_are_routed_into_the_tunnel_and_nowhere_else() -> None:
    to_clients = routing(frozenset(), FACTS).routes
    ((index, found),) = routing(EVERYTHING, FACTS).routes.items() - to_clients.items()

    assert [(r.table, r.prefix, r.index, r.gateway) for r in found] == [
        (UPSTREAM, ip_network("0.0.0.0/0"), index, None)
    ]
    assert index == TUNNEL.index
    assert UPSTREAM not in {r.table for each in to_clients.values() for r in each}


@pytest.mark.parametrize(
    ("kind", "carries", "ends"),
    [
        (Gateway.ROUTER, False, False),
        (Gateway.TUNNEL, True, False),
        (Gateway.PROXY, True, True),
    ],
)
def test_a_gateway_has_what_its_kind_needs_and_no_more(
    *, kind: Gateway, carries: bool, ends: bool
) -> None:
    """Each chain of a hook is asked about every packet."""
    text, content = constant(kind, USUAL), ruleset(EVERYTHING, Facts(kind=kind))

    assert (CARRIER_TEXT in text, REDIRECT_TEXT in text) == (carries, ends)
    assert (Key(IP, "by_uid") in content, Key(IP, "judged") in content) == (
        carries,
        ends,
    )


def test_the_guard_of_an_uplink_names_senders_before_it_counts_drops() -> None:
    rules = [x for x in carrier_guard("eth0").splitlines() if x.startswith("add rule")]

    assert all("meta skuid" in x or "meta mark" in x for x in rules[:-2])
    assert "arp" in rules[-2]
    assert "accept" not in rules[-1]


def test_where_the_daemon_does_not_listen_nothing_is_sent() -> None:
    """The agent answers control ports without it, and lists are asked all the same."""
    facts = replace(FACTS, redirects={22: Redirect(0, 0, 0, 9103)})
    found = {
        name: elements((IP, name), EVERYTHING, facts)
        for name in ("to_tcp", "to_dns", "to_socks", "to_control", "judged")
    }

    assert found == {
        "to_tcp": {},
        "to_dns": {},
        "to_socks": {},
        "to_control": {"22 . 10.137.0.5": "9103"},
        "judged": {"22 . 10.137.0.5": "goto q_10-137-0-5"},
    }

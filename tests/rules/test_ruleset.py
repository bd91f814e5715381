# SPDX-License-Identifier: GPL-2.0-or-later
"""Flows and facts become the contents of sets and maps, and nothing else.

The golden files are the complete text that a domain loads.  To write them anew,
run this file as a program: ``python -m tests.rules.test_ruleset``.
"""

from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from agent.machine import Way
from firewallvm.states import FIREWALLVM
from netvm.states import NETVM
from rules.constant import constant
from rules.facts import Client, Facts, Gateway, Uplink
from rules.flows import (
    BY_RULES,
    CLIENT_DNS,
    OWN_NAMES,
    OWN_TRAFFIC,
    PING,
    Allowed,
    Flow,
)
from rules.guard import NETDEV_GUARD, uplink_guard
from rules.objects import ARP_GUARD, GUARD, IP, IP6, Chain, Key, Map, Set
from rules.pace import USUAL
from rules.ruleset import closed, ruleset
from rules.transaction import difference
from tests.rules.declarations import undeclared

GOLDEN = Path(__file__).parent / "golden"
MAC, MAC2 = "00:16:3e:5e:6c:00", "00:16:3e:5e:6c:01"
A = Client("vif3.0", 13, MAC, ip_address("10.137.0.5"))  # type: ignore[arg-type]
B = Client(
    "vif4.0",
    14,
    MAC2,
    ip_address("10.138.0.7"),  # type: ignore[arg-type]
    ip_address("fd09:24ef:4179::a8a:7"),  # type: ignore[arg-type]
)
DNS4 = {ip_address(f"10.139.1.{n}"): ip_address("198.51.100.53") for n in (1, 2)}
DNS6 = {ip_address("fd09:24ef:4179::a8b:1"): ip_address("2001:db8::53")}
NIC = Uplink("eth0", 2, frozenset({ip_address("192.168.1.7")}))
NIC6 = Uplink("eth1", 3, frozenset(map(ip_address, ("2001:db8::7", "::"))))
FACTS = Facts(
    clients=(A, B),
    uplinks=(NIC, NIC6),
    dns={**DNS4, **DNS6},
    resolvers=frozenset(map(ip_address, ("198.51.100.53", "2001:db8::53"))),
    connected=frozenset(map(ip_address, ("10.138.0.9", "fd09:24ef:4179::a8a:9"))),
    internal=frozenset({"10.137.0.0/16", "fd09:24ef:4179::/48"}),
    here=frozenset(map(ip_address, ("10.137.0.1", "fd09:24ef:4179::a89:1"))),
    held=frozenset({14}),
)
EVERYTHING = frozenset({BY_RULES, CLIENT_DNS, OWN_TRAFFIC, PING})


def elements(
    table: str, name: str, facts: Facts = FACTS, allowed: Allowed = EVERYTHING
) -> object:
    content = ruleset(allowed, facts)[Key(table, name)]
    assert isinstance(content, Set | Map)
    return content.elements


CONTENTS = {
    (GUARD, "clients4"): {f"13 . {MAC} . 10.137.0.5", f"14 . {MAC2} . 10.138.0.7"},
    (GUARD, "clients6"): {f"14 . {MAC2} . fd09:24ef:4179::a8a:7"},
    (GUARD, "addresses4"): {
        "10.137.0.5",
        "10.138.0.7",
        "10.138.0.9",
        "10.137.0.1",
        "192.168.1.7",
    },
    (GUARD, "addresses6"): {
        "fd09:24ef:4179::a8a:7",
        "fd09:24ef:4179::a8a:9",
        "fd09:24ef:4179::a89:1",
        "2001:db8::7",
    },
    (ARP_GUARD, "clients"): {f"13 . {MAC} . 10.137.0.5", f"14 . {MAC2} . 10.138.0.7"},
    (GUARD, "here4"): {"2 . 192.168.1.7"},
    (GUARD, "held"): {"14"},
    (NETDEV_GUARD, "adopted"): {"2", "3"},
    (NETDEV_GUARD, "own4"): {"2 . 192.168.1.7"},
    (NETDEV_GUARD, "own6"): {"3 . 2001:db8::7", "3 . ::"},
    (IP, "up"): {"2"},
    (IP6, "up"): {"3"},
    (IP, "own"): {"2": "goto own-traffic"},
    (IP6, "own"): {"3": "goto own-traffic"},
    (IP, "own_in"): {"2"},
    (IP6, "own_in"): {"3"},
    (IP, "vifs"): {"13", "14"},
    (IP6, "vifs"): {"14"},
    (IP, "clients"): {
        "13 . 10.137.0.5": "goto q_10-137-0-5",
        "14 . 10.138.0.7": "goto q_10-138-0-7",
    },
    (IP6, "clients"): {
        "14 . fd09:24ef:4179::a8a:7": "goto q_fd09-24ef-4179--a8a-7",
    },
    (IP, "sources"): {"13 . 10.137.0.5", "14 . 10.138.0.7"},
    (IP6, "sources"): {"14 . fd09:24ef:4179::a8a:7"},
    (IP, "behind"): {"13 . 10.137.0.5", "14 . 10.138.0.7"},
    (IP6, "behind"): {"14 . fd09:24ef:4179::a8a:7"},
    (IP, "here"): {"10.137.0.1"},
    (IP6, "here"): {"fd09:24ef:4179::a89:1"},
    (IP, "dns"): {"10.139.1.1": "198.51.100.53", "10.139.1.2": "198.51.100.53"},
    (IP6, "dns"): {"fd09:24ef:4179::a8b:1": "2001:db8::53"},
    (IP, "resolvers"): {"198.51.100.53"},
    (IP6, "resolvers"): {"2001:db8::53"},
}
NEEDS: dict[tuple[str, str], Flow] = {
    (IP, "up"): BY_RULES,
    (IP6, "up"): BY_RULES,
    (IP, "own"): OWN_TRAFFIC,
    (IP6, "own"): OWN_TRAFFIC,
    (IP, "own_in"): OWN_TRAFFIC,
    (IP6, "own_in"): OWN_TRAFFIC,
    (IP, "dns"): CLIENT_DNS,
    (IP6, "dns"): CLIENT_DNS,
}


def called(case: tuple[str, str]) -> str:
    return " ".join(case)


@pytest.mark.parametrize(
    ("table", "inside"),
    [
        (IP, "ip daddr 10.137.0.0/16 return"),
        (IP6, "ip6 daddr fd09:24ef:4179::/48 return"),
    ],
)
def test_internal_addresses_come_back_before_a_client_has_its_rules(
    table: str, inside: str
) -> None:
    chain = ruleset(EVERYTHING, FACTS)[Key(table, "outward")]
    assert isinstance(chain, Chain)
    first, last = chain.rules
    assert first == inside
    assert "vmap @clients" in last


@pytest.mark.parametrize("where", CONTENTS, ids=called)
def test_without_facts_everything_is_empty(where: tuple[str, str]) -> None:
    assert not elements(*where, facts=Facts())


def test_closed_is_every_set_and_nothing_in_it() -> None:
    shut = closed()

    assert shut.keys() == ruleset(EVERYTHING, FACTS).keys()
    assert not any(o.elements for o in shut.values() if isinstance(o, Set | Map))


def test_an_uplink_that_dom0_configures_is_not_adopted() -> None:
    configured = replace(FACTS, configured=True)

    assert elements(NETDEV_GUARD, "adopted", configured) == frozenset()


def test_every_set_is_in_the_table_above() -> None:
    named = {(k.table, k.name) for k, o in closed().items() if not isinstance(o, Chain)}
    assert named == CONTENTS.keys()


def test_names_alone_are_less_than_own_traffic() -> None:
    less = (EVERYTHING - {OWN_TRAFFIC}) | {OWN_NAMES}

    assert elements(IP, "own", allowed=less) == {"2": "goto own-names"}
    both = EVERYTHING | {OWN_NAMES}
    assert elements(IP, "own", allowed=both) == {"2": "goto own-traffic"}


def test_what_an_uplink_has_no_address_for_it_does_not_carry() -> None:
    bare = replace(FACTS, uplinks=(Uplink("eth0", 2),))

    assert elements(IP, "up", bare) == elements(IP6, "up", bare) == frozenset()


def test_an_address_that_two_vifs_claim_leads_to_one_chain() -> None:
    twin = replace(A, vif="vif9.0", index=19)

    assert elements(IP, "clients", replace(FACTS, clients=(A, twin))) == {
        "13 . 10.137.0.5": "goto q_10-137-0-5",
        "19 . 10.137.0.5": "goto q_10-137-0-5",
    }


def test_every_object_is_declared_as_the_constant_rules_declare_it() -> None:
    assert undeclared(Gateway.ROUTER, ruleset(EVERYTHING, FACTS)) == set()


def test_the_order_of_facts_makes_no_difference() -> None:
    backwards = replace(FACTS, clients=(B, A), uplinks=(NIC6, NIC))

    assert ruleset(EVERYTHING, backwards) == ruleset(EVERYTHING, FACTS)


OWN = Uplink("eth0", 2, frozenset({ip_address("10.137.0.9")}))
CASES = {
    "netvm-blocked": (
        "A NetVM without a way out: it answers pings of its clients, and that is all.",
        NETVM.allowed[Way.BLOCKED],
        replace(FACTS, uplinks=(Uplink("eth0", 2),), dns={}, resolvers=frozenset()),
    ),
    "netvm-open": (
        "A NetVM with two clients; something else in it configures the uplink.",
        NETVM.allowed[Way.OPEN],
        replace(FACTS, uplinks=(NIC,), dns=DNS4),
    ),
    "firewallvm-open": (
        "A FirewallVM with an IPv4 and a dual client, itself behind another domain.",
        FIREWALLVM.allowed[Way.OPEN],
        Facts(
            clients=(A, B),
            uplinks=(replace(OWN, own=OWN.own | {ip_address("fd09:24ef:4179::9")}),),
            dns={**dict.fromkeys(DNS4, ip_address("10.139.1.1")), **DNS6},
            resolvers=frozenset({ip_address("10.139.1.1")}),
            configured=True,
        ),
    ),
}


def golden(name: str) -> str:
    purpose, allowed, facts = CASES[name]
    parts = [constant(Gateway.ROUTER, USUAL)]
    parts += [uplink_guard(uplink.name) for uplink in facts.uplinks]
    parts.append(f"\n{difference(None, ruleset(allowed, facts))}")
    return f"# {purpose}\n# Without the chains of the clients' rules.\n{''.join(parts)}"


@pytest.mark.parametrize("name", CASES)
def test_the_whole_text_is_as_it_was_reviewed(name: str) -> None:
    assert (GOLDEN / f"{name}.nft").read_text() == golden(name)


def test_every_golden_file_has_its_case() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == CASES.keys()


if __name__ == "__main__":
    for name in CASES:
        (GOLDEN / f"{name}.nft").write_text(golden(name))

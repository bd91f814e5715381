# SPDX-License-Identifier: GPL-2.0-or-later
"""How a client's list looks in the kernel; what it does there: tests/kernel."""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from ipaddress import IPv6Network, ip_address, ip_network
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules.compile import BUDGET, LENGTH, LINEAR, compile_client
from rules.ground import Ground, ground
from rules.model import (
    Action,
    Address,
    Family,
    Network,
    Policy,
    Ports,
    Proto,
    Rule,
    SpecialTarget,
)
from rules.objects import IP, IP6, Chain, Key, Map, Object, Ruleset, Set, chain_name
from rules.regions import regions
from rules.segments import segments
from rules.services import LAST, decider, first_match, statements
from tests.rules.rule_strategies import RESOLVERS
from tests.rules.rule_strategies import rules as any_rule

CLIENT4, CLIENT6 = ip_address("10.137.0.5"), ip_address("fd09:24ef:4179::a89:5")
FAMILIES = {CLIENT4: Family.IPV4, CLIENT6: Family.IPV6}
TABLES = {CLIENT4: IP, CLIENT6: IP6}
RESOLVED = frozenset(map(ip_address, RESOLVERS))


def resolved(rules: Iterable[Rule], client: Address = CLIENT4) -> Ground:
    policy = Policy(tuple(rules))
    return ground(policy, FAMILIES[client], {}, RESOLVED, now=0)


def compiled(rules: Iterable[Rule], client: Address = CLIENT4) -> Ruleset:
    return compile_client(client, resolved(rules, client))


def entry(objects: Ruleset, client: Address = CLIENT4) -> tuple[str, ...]:
    chain = objects[Key(TABLES[client], chain_name(client))]
    assert isinstance(chain, Chain)
    return chain.rules


def host(number: int) -> Rule:
    """Return a rule for one port of a host, each number another host."""
    prefix = Network(ip_network(f"198.51.{number // 200}.{number % 200}"))
    return Rule(Action.ACCEPT, prefix, Proto.TCP, ports=Ports(443, 443))


def net(number: int) -> Rule:
    """Return a rule for a range of ports, each number another prefix and range."""
    prefix = Network(ip_network(f"10.{number // 200}.{number % 200}.0/24"))
    ports = Ports(1000 + number, 2000 + number)
    return Rule(Action.ACCEPT, prefix, Proto.TCP, ports=ports)


BOTH = [make(number) for number in range(1000) for make in (host, net)]


def texts(content: Object) -> list[str]:
    """Return the rules, or what the elements lead to."""
    match content:
        case Chain(rules):
            return list(rules)
        case Map(_, elements):
            return list(elements.values())
        case Set():
            return []


def disjoint(ranges: Iterable[str], number: Callable[[str], int]) -> bool:
    spans = sorted(
        (number(first), number(last or first))
        for first, _, last in (text.partition("-") for text in ranges)
    )
    return all(a[1] < b[0] for a, b in pairwise(spans))


any_list = st.lists(any_rule(), min_size=LINEAR + 1, max_size=40)
clients = st.sampled_from([CLIENT4, CLIENT6])
ports = st.integers(0, 20)
steps = st.lists(
    st.tuples(ports, ports, st.integers(0, 9)).map(
        lambda step: (min(step[:2]), max(step[:2]), step[2])
    ),
    max_size=12,
)


def test_a_short_list_reads_as_it_was_written() -> None:
    rules = [
        Rule(
            Action.ACCEPT,
            Network(ip_network("192.0.2.0/24")),
            Proto.TCP,
            ports=Ports(80, 443),
        ),
        Rule(Action.DROP, proto=Proto.ICMP, icmp_type=8),
        Rule(Action.ACCEPT, special=SpecialTarget.DNS),
        Rule(Action.ACCEPT, Network(ip_network("0.0.0.0/0"))),
    ]

    assert entry(compiled(rules)) == (
        (
            "ct original ip daddr 192.0.2.0/24 meta l4proto 6"
            ' th dport 80-443 accept comment "rule 0"'
        ),
        'meta l4proto 1 icmp type 8 goto refuse comment "rule 1"',
        *(
            f"ct original ip daddr {resolver}/32 meta l4proto {protocol}"
            ' th dport 53 accept comment "rule 2"'
            for resolver in ("10.139.1.1", "10.139.1.2", "192.0.2.128")
            for protocol in (6, 17)
        ),
        'accept comment "rule 3"',
        'goto refuse comment "default"',
    )


def test_ipv6_says_it_in_its_own_words() -> None:
    rules = [
        Rule(Action.ACCEPT, Network(IPv6Network("2001:db8::/32"))),
        Rule(Action.ACCEPT, proto=Proto.ICMP, icmp_type=3),
    ]

    assert entry(compiled(rules, CLIENT6), CLIENT6) == (
        'ct original ip6 daddr 2001:db8::/32 accept comment "rule 0"',
        'meta l4proto 58 icmpv6 type { 1, 2 } accept comment "rule 1"',
        'goto refuse comment "default"',
    )


def test_the_empty_list_is_its_default() -> None:
    assert compiled([]) == {
        Key(IP, "q_10-137-0-5"): Chain(('goto refuse comment "default"',))
    }


def test_a_long_list_costs_a_packet_the_same_for_any_number_of_rules() -> None:
    assert [len(entry(compiled(BOTH[:count]))) for count in (20, 100, 2000)] == [3] * 3


@given(any_list, clients)
@settings(max_examples=40, deadline=None)
def test_everything_is_named_after_its_client(rules: list[Rule], who: Address) -> None:
    names = {key.name for key in compiled(rules, who)} - {chain_name(who)}

    assert all(name.startswith(f"{chain_name(who)}_") for name in names)
    assert {key.table for key in compiled(rules, who)} == {TABLES[who]}


@given(any_list, clients)
@settings(max_examples=40, deadline=None)
def test_chains_are_at_most_four_deep(rules: list[Rule], who: Address) -> None:
    objects = {key.name: content for key, content in compiled(rules, who).items()}

    def depth(name: str) -> int:
        text = "\n".join(texts(objects.get(name, Chain(()))))
        below = [1 + depth(n) for n in re.findall(r"(?:jump|goto) (\S+)", text)]
        looked_up = [depth(n) for n in re.findall(r"vmap @(\S+)", text)]
        return max([0, *below, *looked_up])

    assert depth(chain_name(who)) <= 4


@given(any_list, clients)
@settings(max_examples=40, deadline=None)
def test_no_two_elements_overlap(rules: list[Rule], who: Address) -> None:
    for content in compiled(rules, who).values():
        if isinstance(content, Map) and "interval" in content.declaration:
            ranges = [key.removesuffix(" . 0-255") for key in content.elements]
            assert disjoint(ranges, lambda text: int(ip_address(text)))
        elif isinstance(content, Chain):
            for rule in content.rules:
                for numbers in re.findall(r"(?:l4proto|dport|type) { (.*?) }", rule):
                    assert disjoint(numbers.split(", "), int)


@given(any_list, clients)
@settings(max_examples=40, deadline=None)
def test_the_words_that_nft_gets_wrong_are_never_used(
    rules: list[Rule], who: Address
) -> None:
    text = " ".join(t for o in compiled(rules, who).values() for t in texts(o))

    assert "!=" not in text
    assert "nexthdr" not in text


@given(any_list, clients)
@settings(max_examples=40, deadline=None)
def test_every_way_ends_in_a_verdict(rules: list[Rule], who: Address) -> None:
    *_, last = entry(compiled(rules, who), who)

    assert last.removesuffix(' comment "default"') in {"accept", "goto refuse"}


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(host(3000), id="to another host"),
        pytest.param(net(3000), id="to another prefix and range of ports"),
        pytest.param(replace(net(3000), ports=None), id="to all ports of a prefix"),
    ],
)
@pytest.mark.parametrize("place", [0, 1, 777, 1998])
def test_a_changed_rule_changes_a_handful_of_objects(place: int, changed: Rule) -> None:
    before = compiled(BOTH)

    after = compiled([*BOTH[:place], changed, *BOTH[place + 1 :]])

    keys = before.keys() | after.keys()
    assert len([key for key in keys if before.get(key) != after.get(key)]) <= 4


def test_an_inserted_rule_moves_no_other() -> None:
    before, after = compiled(BOTH), compiled([net(3000), *BOTH])

    assert len([key for key in after if before.get(key) != after[key]]) <= 4


def test_lists_that_would_explode_are_cut_into_segments() -> None:
    wide = Network(ip_network("10.0.0.0/8"))
    rules = [
        rule
        for number in range(500)
        for rule in (net(number), replace(net(number), destination=wide))
    ]

    objects = compiled(rules)

    assert 1 < len(list(segments(resolved(rules).matches, BUDGET))) < 20
    assert sum(len(texts(content)) for content in objects.values()) < 200 * len(rules)


def test_a_changed_rule_compiles_its_own_segment_alone() -> None:
    many = [host(number) for number in range(3 * LENGTH)]
    changed = [*many[:100], net(1), *many[101:]]
    old, new = resolved(many).matches, resolved(changed).matches
    parts = zip(
        segments(old, BUDGET, LENGTH), segments(new, BUDGET, LENGTH), strict=True
    )

    assert [before == after for before, after in parts] == [False, True, True]


def test_a_rule_for_every_packet_ends_the_list() -> None:
    everything = Rule(Action.ACCEPT)

    assert compiled([*BOTH, everything]) == compiled([*BOTH, everything, *BOTH])


@given(steps, ports)
def test_the_first_match_is_the_lowest_number(
    found: list[tuple[int, int, int]], point: int
) -> None:
    numbers = [number for first, last, number in found if first <= point <= last]

    decided = first_match(found)

    assert decider(decided, point, other=99) == min(numbers, default=99)
    assert all(a[1] < b[0] for a, b in pairwise(decided))


@given(st.dictionaries(st.tuples(st.integers(0, 15), st.integers(0, 4)), steps))
def test_a_region_has_the_steps_of_all_prefixes_around_it(
    shapes: dict[tuple[int, int], list[tuple[int, int, int]]],
) -> None:
    prefixes = {
        (n >> size << size, (n >> size << size) + (1 << size) - 1): found
        for (n, size), found in shapes.items()
    }

    cut = regions(prefixes)

    assert all(a[1] < b[0] for a, b in pairwise(cut))
    for address in range(32):
        around = [p for p in prefixes if p[0] <= address <= p[1]]
        here = [steps for first, last, steps in cut if first <= address <= last]
        wanted = first_match(step for prefix in around for step in prefixes[prefix])
        assert bool(here) is bool(around)
        assert all(
            decider(here[0], point, 99) == decider(wanted, point, 99)
            for point in range(21)
            if here
        )


@pytest.mark.parametrize("gap", [0, 300, LAST])
def test_a_single_point_left_open_is_left_open(gap: int) -> None:
    pieces = [(0, gap - 1, "accept"), (gap + 1, LAST, "accept")]

    rules = statements(tuple(piece for piece in pieces if piece[0] <= piece[1]))

    assert "accept" not in rules

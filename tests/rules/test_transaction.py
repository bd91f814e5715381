# SPDX-License-Identifier: GPL-2.0-or-later
"""A ruleset becomes another in one transaction, and the kernel agrees."""

import json
from collections.abc import Iterator
from random import Random

import pytest

from rules.objects import IP, IP6, Chain, Key, Map, Object, Ruleset, Set
from rules.transaction import FEW, Edit, Steps, difference, steps
from tests.kernel.tunnels import Tunnels, tunnels

RANGES = "type ipv4_addr; flags interval;"
VERDICTS = "type ipv4_addr . inet_proto : verdict; flags interval;"
PORTS = "type inet_service : verdict;"

SET, MAP, CHAIN, LEAF = (Key(IP, name) for name in ("q_set", "q_map", "q_one", "q_two"))
OLD: Ruleset = {
    SET: Set(RANGES, frozenset({"192.0.2.0/24", "198.51.100.1"})),
    MAP: Map(PORTS, {"80": "accept", "443": "goto q_two"}),
    CHAIN: Chain(("ip daddr @q_set accept", "th dport vmap @q_map")),
    LEAF: Chain(("accept",)),
}


def test_equal_rulesets_need_no_transaction() -> None:
    assert difference(OLD, dict(OLD)) == ""


def test_what_is_new_is_declared_before_anything_refers_to_it() -> None:
    lines = difference({}, OLD).splitlines()

    declared = [line.split()[:2] for line in lines[: len(OLD)]]
    assert sorted(declared) == [["add", "chain"]] * 2 + [["add", "map"], ["add", "set"]]
    assert [line for line in lines[len(OLD) :] if "element" not in line] == [
        "add rule ip qubes q_one ip daddr @q_set accept",
        "add rule ip qubes q_one th dport vmap @q_map",
        "add chain ip qubes q_two { accept; }",
    ]


def test_a_changed_element_is_deleted_and_added_and_no_other_is_touched() -> None:
    new = {**OLD, MAP: Map(PORTS, {"80": "goto q_two", "443": "goto q_two"})}

    assert difference(OLD, new) == (
        "delete element ip qubes q_map { 80 }\n"
        "add element ip qubes q_map { 80 : goto q_two }\n"
    )


def test_a_changed_chain_is_flushed_and_filled() -> None:
    new = {**OLD, LEAF: Chain(("meta l4proto 6 accept", "drop"))}

    assert difference(OLD, new) == (
        "flush chain ip qubes q_two\n"
        "add chain ip qubes q_two { meta l4proto 6 accept; drop; }\n"
    )


def test_what_is_gone_is_deleted_last_and_maps_before_the_chains_in_them() -> None:
    lines = difference(OLD, {CHAIN: Chain(("accept",))}).splitlines()

    assert lines[:2] == [
        "flush chain ip qubes q_one",
        "add chain ip qubes q_one { accept; }",
    ]
    assert [line.split()[:2] for line in lines[-3:]] == [
        ["delete", "set"],
        ["delete", "map"],
        ["delete", "chain"],
    ]


def test_of_an_unknown_kernel_everything_is_flushed_first() -> None:
    lines = difference(None, OLD).splitlines()

    verbs = [line.split()[0] for line in lines]
    assert verbs == ["add"] * 4 + ["flush"] * 4 + verbs[8:]
    assert set(verbs[8:]) == {"add"}


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(Set("type ipv4_addr;", frozenset()), id="another declaration"),
        pytest.param(Map(RANGES, {}), id="another kind"),
        pytest.param(Chain(()), id="a chain"),
    ],
)
def test_no_object_becomes_something_else(other: Object) -> None:
    with pytest.raises(ValueError, match="ip qubes q_set: declared otherwise"):
        difference(OLD, {**OLD, SET: other})


def test_long_lists_of_elements_are_cut() -> None:
    ports = Map(PORTS, {str(port): "accept" for port in range(10_000)})

    lines = difference({}, {MAP: ports}).splitlines()

    assert len(lines) == 1 + 3
    assert sum(line.count(": accept") for line in lines) == 10_000


INDEXES = "type iface_index;"
WAYS = "typeof iif . ip saddr : verdict;"
FRAME: Ruleset = {
    SET: Set(INDEXES, frozenset({"2"})),
    MAP: Map(WAYS, {"5 . 10.0.0.5": "goto q_one"}),
    CHAIN: Chain(("accept",)),
}
COME: Ruleset = {
    SET: Set(INDEXES, frozenset({"3"})),
    MAP: Map(WAYS, {"6 . 10.0.0.6": "goto q_two"}),
    LEAF: Chain(("drop",)),
}


def test_a_client_that_comes_and_one_that_goes_are_three_transactions() -> None:
    """The first adds a chain that nothing leads to, the last deletes such a one."""
    found = steps(FRAME, COME)

    assert found == Steps(
        added="add chain ip qubes q_two\nadd chain ip qubes q_two { drop; }\n",
        edits=(
            Edit(MAP, ("5 . 10.0.0.5",), ("6 . 10.0.0.6 : goto q_two",)),
            Edit(SET, ("2",), ("3",)),
        ),
        removed="flush chain ip qubes q_one\ndelete chain ip qubes q_one\n",
        undo="flush chain ip qubes q_two\ndelete chain ip qubes q_two\n",
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(FRAME, {**COME, CHAIN: Chain(("drop",))}, id="a rule changes too"),
        pytest.param(OLD, {**OLD, SET: Set(RANGES, frozenset())}, id="of ranges"),
        pytest.param(OLD, {**OLD, MAP: Map(PORTS, {})}, id="of ports"),
        pytest.param(FRAME, {SET: FRAME[SET], MAP: FRAME[MAP]}, id="only a chain"),
        pytest.param(FRAME, {**FRAME, MAP: Map(PORTS, {})}, id="declared otherwise"),
        pytest.param(FRAME, dict(FRAME), id="nothing"),
        pytest.param(
            FRAME,
            {**FRAME, SET: Set(INDEXES, frozenset(map(str, range(3, FEW + 3))))},
            id="more than a few",
        ),
    ],
)
def test_there_are_no_steps_where_more_than_plain_elements_changes(
    old: Ruleset, new: Ruleset
) -> None:
    """The control: without the rule, there are."""
    assert steps(FRAME, COME) is not None

    assert steps(old, new) is None


def random_ruleset(dice: Random, table: str) -> Ruleset:
    """Return a few objects that refer to each other in every possible way."""
    version, kind, start = ("ip", "ipv4_addr", "10.0.0.")
    if table == IP6:
        version, kind, start = ("ip6", "ipv6_addr", "2001:db8::")
    daddr = f"ct original {version} daddr"
    chains = [f"q_c{n}" for n in range(6) if dice.random() < 0.7]
    numbers = [n for n in range(0, 40, 2) if dice.random() < 0.5]
    ranges = [
        dice.choice([f"{start}{n}", f"{start}{n}-{start}{n + 1}"]) for n in numbers
    ]

    def verdict() -> str:
        return dice.choice(["accept", "drop", *(f"goto {name}" for name in chains)])

    looked_up: list[tuple[str, str, Object]] = [
        (
            f"{daddr} @",
            "accept",
            Set(f"type {kind}; flags interval;", frozenset(ranges)),
        ),
        (
            f"{daddr} . meta l4proto vmap @",
            "",
            Map(
                f"type {kind} . inet_proto : verdict; flags interval;",
                {f"{key} . 0-255": verdict() for key in ranges},
            ),
        ),
        (
            "meta l4proto 6 th dport vmap @",
            "",
            Map(PORTS, {str(n): verdict() for n in numbers}),
        ),
    ]
    found: dict[Key, Object] = {}
    top = []
    for n, (match, then, content) in enumerate(looked_up):
        if dice.random() < 0.7:
            found[Key(table, f"q_s{n}")] = content
            top.append(f"{match}q_s{n} {then}")
    for n, name in enumerate(chains):
        later = [f"jump {other}" for other in chains[n + 1 :]]
        rules = dice.choices(["accept", "meta l4proto { 6, 17 } drop", *later], k=2)
        found[Key(table, name)] = Chain(tuple(rules))
    return {**found, Key(table, "q_top"): Chain(tuple(top))}


def listed(kernel: Tunnels, table: str) -> set[str]:
    """Return the table as JSON texts, without handles and in no order but a chain's."""
    items = json.loads(kernel.apply(f"list table {table}"))["nftables"]
    rules: dict[str, list[object]] = {}
    others = []
    for item in items:
        for content in item.values():
            content.pop("handle", None)
        if "rule" in item:
            rules.setdefault(item["rule"]["chain"], []).append(item)
        else:
            for content in item.values():
                content.get("elem", []).sort(key=json.dumps)
            others.append(item)
    return {json.dumps(item, sort_keys=True) for item in [*others, *rules.items()]}


@pytest.fixture
def kernel() -> Iterator[Tunnels]:
    with tunnels() as found:
        found.nft.set_json_output(True)
        yield found


@pytest.mark.kernel
@pytest.mark.parametrize("table", [IP, IP6])
def test_the_kernel_holds_the_same_by_any_way(table: str, kernel: Tunnels) -> None:
    dice = Random(table)
    old: Ruleset = {}
    for _ in range(60):
        new = random_ruleset(dice, table)
        kernel.apply(difference(old, new))
        by_difference = listed(kernel, table)

        kernel.apply(difference(None, new))
        refilled = listed(kernel, table)
        kernel.apply(difference(new, {}))
        kernel.apply(difference({}, new))

        assert by_difference == refilled == listed(kernel, table)
        assert any("q_top" in text for text in refilled)
        old = new
    kernel.apply(difference(old, {}))
    assert not any("q_" in text for text in listed(kernel, table))

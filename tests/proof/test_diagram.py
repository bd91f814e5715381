# SPDX-License-Identifier: GPL-2.0-or-later
"""Diagrams agree with going through all packets, one by one."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proof.diagram import Budget, Node, OverrunError, Span
from proof.explore import count, leaves, pick, project, unreachable, value_at
from proof.relabel import relabel, where
from proof.space import Space
from proof.table import table

WIDTHS = {"a": 3, "b": 2, "c": 3}
POINTS = [
    dict(zip(WIDTHS, numbers, strict=True))
    for numbers in product(*(range(2**width) for width in WIDTHS.values()))
]
Box = tuple[Span, Span, Span]


def span_of(width: int) -> st.SearchStrategy[Span]:
    numbers = st.integers(0, 2**width - 1)
    return st.tuples(numbers, numbers).map(lambda ends: (min(ends), max(ends)))


boxes = st.tuples(*(span_of(width) for width in WIDTHS.values()))
lists = st.lists(boxes, max_size=8)


def holds(box: Box, point: dict[str, int]) -> bool:
    return all(
        first <= point[name] <= last
        for name, (first, last) in zip(WIDTHS, box, strict=True)
    )


def space() -> Space:
    return Space(WIDTHS.items())


def drawn(inside: Space, box: Box) -> Node:
    node: Node = inside.true
    for level, span in enumerate(box):
        node = inside.both(node, inside.within(level, span))
    return node


def union(inside: Space, found: list[Box]) -> Node:
    sets = [drawn(inside, box) for box in found]
    return inside.fold(inside.either, sets, inside.false)


@given(lists, lists)
def test_and_or_and_minus_are_those_of_sets(one: list[Box], two: list[Box]) -> None:
    here = space()
    a, b = union(here, one), union(here, two)
    results = {
        "both": here.both(a, b),
        "either": here.either(a, b),
        "minus": here.minus(a, b),
    }

    for point in POINTS:
        in_a = any(holds(box, point) for box in one)
        in_b = any(holds(box, point) for box in two)
        assert {name: value_at(here, d, point) for name, d in results.items()} == {
            "both": in_a and in_b,
            "either": in_a or in_b,
            "minus": in_a and not in_b,
        }


@given(lists, lists)
def test_equal_sets_are_one_object(one: list[Box], two: list[Box]) -> None:
    here = space()
    same = all(
        any(holds(box, point) for box in one) == any(holds(box, point) for box in two)
        for point in POINTS
    )

    assert (union(here, one) is union(here, two)) is same


@given(lists)
def test_over_is_the_first_match(found: list[Box]) -> None:
    here = space()
    rules = [here.only(drawn(here, b), here.leaf(i)) for i, b in enumerate(found)]

    winner = here.fold(here.over, rules, here.nothing)

    first = {
        tuple(p.values()): next((i for i, b in enumerate(found) if holds(b, p)), None)
        for p in POINTS
    }
    assert all(value_at(here, winner, p) == first[tuple(p.values())] for p in POINTS)
    assert leaves(winner) == frozenset(first.values())
    assert unreachable(here, [drawn(here, b) for b in found]) == tuple(
        i for i in range(len(found)) if i not in first.values()
    )


@given(lists)
def test_a_table_is_its_boxes_over_each_other(found: list[Box]) -> None:
    here = space()
    rules = [here.only(drawn(here, b), here.leaf(i)) for i, b in enumerate(found)]

    built = table(here, [0, 1, 2], [(b, here.leaf(i)) for i, b in enumerate(found)])

    assert built is here.fold(here.over, rules, here.nothing)


@given(lists)
def test_counting_and_picking_find_the_members(found: list[Box]) -> None:
    here = space()
    node = union(here, found)
    members = [p for p in POINTS if any(holds(box, p) for box in found)]

    witness = pick(here, node)

    assert count(here, node) == len(members)
    assert witness in members if members else witness is None


@given(lists, st.sampled_from([0, 1, 2]))
def test_a_projection_quantifies_one_field(found: list[Box], level: int) -> None:
    here = space()
    node = union(here, found)
    may = project(here, node, {level}, here.either)
    must = project(here, node, {level}, here.both)

    for point in POINTS:
        name = list(WIDTHS)[level]
        values = [
            value_at(here, node, {**point, name: number})
            for number in range(2 ** WIDTHS[name])
        ]
        assert value_at(here, may, point) is any(values)
        assert value_at(here, must, point) is all(values)


@given(lists, lists)
def test_a_value_can_be_replaced_by_a_diagram(one: list[Box], two: list[Box]) -> None:
    here = space()
    a, b = union(here, one), union(here, two)

    bound = relabel(here, a, lambda value: b if value else "outside")

    for point in POINTS:
        wanted = value_at(here, b, point) if value_at(here, a, point) else "outside"
        assert value_at(here, bound, point) == wanted
    assert where(here, bound, {"outside"}) is here.minus(here.true, a)


def test_a_liked_number_is_picked_where_it_can_be() -> None:
    here = space()
    node = here.either(here.within(0, (2, 5)), here.within(2, (7, 7)))

    assert pick(here, node, liked={"a": [4], "c": [1]}) == {"a": 4, "b": 0, "c": 1}
    assert pick(here, here.within(0, (2, 3)), liked={"a": [7, 3]}) == {
        "a": 3,
        "b": 0,
        "c": 0,
    }


def test_fields_of_any_width_may_come_later() -> None:
    here = Space([("address", 128)])
    node = here.within(0, (2**127, 2**128 - 1))
    late = here.field("late", 1)

    assert here.field("late", 1) == late
    assert count(here, here.both(node, here.within(late, (1, 1)))) == 2**127


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        pytest.param(Budget(nodes=2000), "more than 2000 branches", id="branches"),
        pytest.param(Budget(seconds=0.0), r"more than 0\.0 s", id="seconds"),
    ],
)
def test_what_is_over_budget_is_not_answered(budget: Budget, message: str) -> None:
    here = Space([("a", 16), ("b", 16)], budget)

    diagonal = (
        here.both(here.within(0, (n, n)), here.within(1, (n, n))) for n in range(4000)
    )
    with pytest.raises(OverrunError, match=message):
        list(diagonal)

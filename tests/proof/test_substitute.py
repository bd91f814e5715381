# SPDX-License-Identifier: GPL-2.0-or-later
"""A field of a diagram can be a number, another field, one less, or an image."""

from itertools import product
from random import Random

import pytest

from proof.diagram import Node
from proof.explore import value_at
from proof.relabel import continued, relabel
from proof.space import Space
from proof.substitute import Field, Less, Meaning, substitute

NAMES = ("a", "b", "c")
TOP = 7


@pytest.fixture
def space() -> Space:
    return Space([(name, 3) for name in NAMES])


def random_node(space: Space, dice: Random, values: int) -> Node:
    found: Node = space.nothing
    for value in range(values):
        box: Node = space.true
        for name in NAMES:
            first, last = sorted(dice.choices(range(TOP + 1), k=2))
            box = space.both(box, space.within(space.levels[name], (first, last)))
        found = space.over(space.only(box, space.leaf(value)), found)
    return space.over(found, space.leaf(values))


def meant(space: Space, meaning: Meaning, point: dict[str, int]) -> int:
    match meaning:
        case int(number):
            return number
        case Field(level):
            return point[space.names[level]]
        case Less(level):
            return max(0, point[space.names[level]] - 1)
        case image:
            value = value_at(space, image, point)
            assert isinstance(value, int)
            return value


@pytest.mark.parametrize("seed", range(30))
def test_fields_are_replaced_all_at_once(seed: int, space: Space) -> None:
    dice = Random(seed)
    node = random_node(space, dice, 4)
    image = relabel(space, random_node(space, dice, 3), lambda value: value)
    meanings: dict[str, Meaning] = {
        name: dice.choice(
            [dice.randrange(TOP + 1), image]
            + [kind(space.levels[n]) for kind in (Field, Less) for n in NAMES]
        )
        for name in NAMES
        if dice.random() < 0.8
    }

    found = substitute(space, node, lambda level: meanings.get(space.names[level]))

    for numbers in product(range(TOP + 1), repeat=3):
        point = dict(zip(NAMES, numbers, strict=True))
        there = point | {n: meant(space, m, point) for n, m in meanings.items()}
        assert value_at(space, found, point) == value_at(space, node, there)


@pytest.mark.parametrize("seed", range(20))
def test_values_may_become_diagrams_in_either_way(seed: int, space: Space) -> None:
    dice = Random(seed)
    node, other = random_node(space, dice, 4), random_node(space, dice, 3)

    def change(value: object) -> object:
        return other if value in {0, 2} else f"was {value}"

    assert continued(space, node, change) is relabel(space, node, change)

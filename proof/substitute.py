# SPDX-License-Identifier: GPL-2.0-or-later
"""A diagram said in other words: fields replaced by numbers and by other fields.

What a chain sees is not what came in: destinations are translated, interfaces
are known, counters of hops run down.  A diagram of what a chain sees becomes one
of what came in when each of its fields is replaced by what it is made of.
"""

from bisect import bisect_left
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from proof.diagram import Branch, Leaf, Node, child_at
from proof.relabel import placed, relabel
from proof.space import Space


@dataclass(frozen=True, slots=True)
class Field:
    """The field that another one is equal to."""

    level: int


@dataclass(frozen=True, slots=True)
class Less:
    """One less than another field is, but never below 0."""

    level: int


Meaning = int | Field | Less | Leaf | Branch
"""A number, another field, one less, or a diagram that gives packets numbers."""
Words = Callable[[int], Meaning | None]
"""What a field, by level, is made of; None: it stays."""


class Substitution(dict[Node, Node]):
    """Diagrams with all fields replaced at once, each when it is asked for."""

    def __init__(self, space: Space, words: Words) -> None:
        """Take what fields are made of, which stays the same."""
        super().__init__()
        self._space = space
        self._words = words

    def __missing__(self, item: Node) -> Node:
        """Replace the fields of one that was not asked for before."""
        found = item if isinstance(item, Leaf) else self._replaced(item)
        self[item] = found
        return found

    def _replaced(self, item: Branch) -> Node:
        meaning = self._words(item.level)
        if isinstance(meaning, int):
            return self[child_at(item, meaning)]
        space, children = self._space, [*map(self.__getitem__, item.children)]
        match meaning:
            case Field(level):
                return placed(space, level, item.bounds, children)
            case Less(level):
                return counted(space, level, item.bounds, children)
            case Leaf() | Branch() as image:
                return imaged(space, item.bounds, image, children)
            case None:
                return placed(space, item.level, item.bounds, children)


def substitute(space: Space, node: Node, words: Words) -> Node:
    """Return the diagram with all fields replaced at once."""
    return Substitution(space, words)[node]


def imaged(
    space: Space, bounds: Sequence[int], image: Node, children: list[Node]
) -> Node:
    """Return a branch on what a diagram says in place of a field."""

    def child(number: Hashable) -> Node:
        if not isinstance(number, int):
            raise TypeError(f"not a number: {number}")
        return children[bisect_left(bounds, number)]

    return relabel(space, image, child)


def counted(
    space: Space, level: int, bounds: Sequence[int], children: list[Node]
) -> Node:
    """Return a branch on one less than another field."""
    more = [min(bound + 1, space.tops[level]) for bound in bounds]
    if len(more) > 1 and more[-1] == more[-2]:
        del more[-1], children[-1]
    return placed(space, level, more, children)

# SPDX-License-Identifier: GPL-2.0-or-later
"""A diagram said in other words: fields replaced by numbers and by other fields.

What a chain sees is not what came in: destinations are translated, interfaces
are known, counters of hops run down.  A diagram of what a chain sees becomes one
of what came in when each of its fields is replaced by what it is made of.
"""

from bisect import bisect_left
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from proof.diagram import Branch, Leaf, Node, Span, cells, child_at
from proof.explore import relabel
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


def substitute(
    space: Space, node: Node, words: Words, memo: dict[Node, Node] | None = None
) -> Node:
    """Return the diagram with all fields replaced at once.

    ``memo`` is for further calls with the same words.
    """
    known: dict[Node, Node] = {} if memo is None else memo

    def visit(item: Node) -> Node:
        if isinstance(item, Leaf):
            return item
        found = known.get(item)
        if found is None:
            found = known[item] = replaced(item)
        return found

    def replaced(item: Branch) -> Node:
        match words(item.level):
            case int(number):
                return visit(child_at(item, number))
            case Field(level):
                return placed(space, item, level, [*map(visit, item.children)])
            case Less(level):
                return counted(space, item, level, [*map(visit, item.children)])
            case Leaf() | Branch() as image:
                children = [*map(visit, item.children)]
                return imaged(space, item, image, children)
            case None:
                return placed(space, item, item.level, [*map(visit, item.children)])

    return visit(node)


def placed(space: Space, item: Branch, level: int, children: list[Node]) -> Node:
    """Return a branch at any level, whatever the levels of its children."""
    if all(child.level > level for child in children):
        return space.branch(level, item.bounds, children)
    parts: dict[Node, list[Span]] = {}
    for (span, _), child in zip(cells(item), children, strict=True):
        parts.setdefault(child, []).append(span)
    return space.fold(
        space.over,
        (space.only(space.within(level, *s), c) for c, s in parts.items()),
        space.nothing,
    )


def imaged(space: Space, item: Branch, image: Node, children: list[Node]) -> Node:
    """Return a branch on what a diagram says in place of a field."""

    def child(number: Hashable) -> Node:
        if not isinstance(number, int):
            raise TypeError(f"not a number: {number}")
        return children[bisect_left(item.bounds, number)]

    return relabel(space, image, child)


def counted(space: Space, item: Branch, level: int, children: list[Node]) -> Node:
    """Return a branch on one less than another field."""
    bounds = [min(bound + 1, space.tops[level]) for bound in item.bounds]
    if len(bounds) > 1 and bounds[-1] == bounds[-2]:
        del bounds[-1], children[-1]
    more = Branch(item.level, tuple(bounds), tuple(children))
    return placed(space, more, level, children)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Diagrams that say something else where they said something."""

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from operator import attrgetter
from types import MappingProxyType

from proof.diagram import Branch, Leaf, Node, Span
from proof.space import Space

_Known = Mapping[Node, Node]
_Change = Callable[[Hashable], Hashable | Node]
_LEVEL = attrgetter("level")
_NONE: _Known = MappingProxyType({})


class _Relabelled(dict[Node, Node]):
    """Diagrams with each value replaced, each once.

    A dictionary that knows what to do, and no two functions that know each other: it
    is gone when it is not needed, and most that is asked for is there already.
    """

    def __init__(self, space: Space, change: _Change, known: _Known) -> None:
        super().__init__(known)
        self._space = space
        self._change = change

    def __missing__(self, item: Node) -> Node:
        found = self._leaf(item) if isinstance(item, Leaf) else self._branch(item)
        self[item] = found
        return found

    def _leaf(self, item: Leaf) -> Node:
        return _diagram(self._space, self._change(item.value))

    def _branch(self, item: Branch) -> Node:
        children = [*map(self.__getitem__, item.children)]
        return placed(self._space, item.level, item.bounds, children)


def relabel(space: Space, node: Node, change: _Change, known: _Known = _NONE) -> Node:
    """Return the diagram with each value replaced by a value or by a diagram.

    ``known`` has what replaces some leaves, which ``change`` is not asked for.
    """
    return _Relabelled(space, change, known)[node]


def _diagram(space: Space, new: Hashable | Node) -> Node:
    return new if isinstance(new, Leaf | Branch) else space.leaf(new)


def placed(
    space: Space, level: int, bounds: Sequence[int], children: list[Node]
) -> Node:
    """Return a branch at any level, whatever the levels of its children."""
    if level < min(map(_LEVEL, children)):
        return space.branch(level, bounds, children)
    parts: dict[Node, list[Span]] = {}
    first = 0
    for last, child in zip(bounds, children, strict=True):
        parts.setdefault(child, []).append((first, last))
        first = last + 1
    return space.fold(
        space.over,
        (space.only(space.within(level, *s), c) for c, s in parts.items()),
        space.nothing,
    )


def continued(space: Space, node: Node, change: _Change) -> Node:
    """Return the same as `relabel`, faster where few values become diagrams."""
    parts: list[Node] = []
    plain: dict[Node, Node] = {}
    leaves = _leaves(node)
    nowhere: dict[Node, Node] = dict.fromkeys(leaves, space.false)
    for leaf in leaves:
        new = _diagram(space, change(leaf.value))
        if isinstance(new, Branch):
            here = relabel(space, node, change, {**nowhere, leaf: space.true})
            parts.append(space.only(here, new))
            new = space.nothing
        plain[leaf] = new
    parts.append(relabel(space, node, change, plain))
    return space.fold(space.over, parts, space.nothing)


def _leaves(node: Node) -> list[Leaf]:
    """Return every leaf of a diagram, in the same order each time."""
    found: dict[Leaf, None] = {}
    seen: set[Node] = set()
    waiting = [node]
    while waiting:
        item = waiting.pop()
        if isinstance(item, Leaf):
            found[item] = None
        elif item not in seen:
            seen.add(item)
            waiting += reversed(item.children)
    return list(found)


def where(space: Space, node: Node, values: Collection[Hashable]) -> Node:
    """Return the packets that get one of these values."""
    return relabel(space, node, values.__contains__)

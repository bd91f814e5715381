# SPDX-License-Identifier: GPL-2.0-or-later
"""Where diagrams are made: each once, so that equality is identity."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import islice, repeat
from operator import is_
from time import thread_time

from proof.diagram import (
    BOTTOM,
    Branch,
    Budget,
    Leaf,
    Node,
    OverrunError,
    Span,
    joined,
)

_CHECK = 1024  # branches between two looks at the clock
_Shortcut = Callable[[Node, Node], Node | None]
_Pair = tuple[Node, Node]


class _Merged(dict[_Pair, Node]):
    """Two diagrams combined point by point, each pair once.

    ``shortcut`` knows the result for all leaves.  A dictionary, for most pairs that
    are asked for are there already, and nothing finds them faster.
    """

    def __init__(self, space: "Space", shortcut: _Shortcut) -> None:
        super().__init__()
        self._space = space
        self._shortcut = shortcut

    def __missing__(self, pair: _Pair) -> Node:
        a, b = pair
        found = self._shortcut(a, b)
        if found is None:
            found = self._meet(a, b)
        self[pair] = found
        return found

    def _meet(self, a: Node, b: Node) -> Node:
        if isinstance(a, Branch) and a.level < b.level:
            pairs: Iterable[_Pair] = zip(a.children, repeat(b))
            level, bounds = a.level, a.bounds
        elif not isinstance(b, Branch):
            raise TypeError(f"no result for {a} and {b}")
        elif not isinstance(a, Branch) or b.level < a.level:
            pairs = zip(repeat(a), b.children)
            level, bounds = b.level, b.bounds
        else:
            level, bounds = a.level, tuple(sorted({*a.bounds, *b.bounds}))
            pairs = _aligned(a, b, bounds)
        return self._space.branch(level, bounds, [*map(self.__getitem__, pairs)])


def _unlike(
    bounds: Sequence[int], children: Sequence[Node]
) -> tuple[list[int], list[Node]]:
    """Return both without the children that the next one is the same as."""
    ends: list[int] = []
    kept: list[Node] = []
    for end, child in zip(bounds, children, strict=True):
        if kept and kept[-1] is child:
            ends[-1] = end
        else:
            ends.append(end)
            kept.append(child)
    return ends, kept


def _aligned(a: Branch, b: Branch, bounds: Iterable[int]) -> Iterator[_Pair]:
    """Yield the children of both that hold up to each of these bounds."""
    i = j = 0
    for bound in bounds:
        yield a.children[i], b.children[j]
        i += a.bounds[i] == bound
        j += b.bounds[j] == bound


class Space:
    """The fields of a packet, from the first to be looked at, and the diagrams.

    Every method that builds may raise `OverrunError`.
    """

    def __init__(
        self, fields: Iterable[tuple[str, int]], budget: Budget | None = None
    ) -> None:
        """Take names and widths in bits."""
        self.names: list[str] = []
        self.tops: list[int] = []
        self.levels: dict[str, int] = {}
        self._budget = budget or Budget()
        self._deadline = thread_time() + self._budget.seconds
        self._branches: dict[tuple[int, tuple[int, ...], tuple[Node, ...]], Branch] = {}
        self._leaves: dict[tuple[type, Hashable], Leaf] = {}
        self._merged: dict[_Shortcut, _Merged] = {}
        self.false, self.true = self.leaf(value=False), self.leaf(value=True)
        self.nothing = self.leaf(None)
        for name, width in fields:
            self.field(name, width)

    def field(self, name: str, width: int) -> int:
        """Return the level of a field; a new one comes after all others."""
        if name not in self.levels:
            self.levels[name] = len(self.names)
            self.names.append(name)
            self.tops.append((1 << width) - 1)
        return self.levels[name]

    @property
    def size(self) -> int:
        """The number of different branches built so far."""
        return len(self._branches)

    def leaf(self, value: Hashable) -> Leaf:
        """Return the diagram that is this value everywhere."""
        key = (type(value), value)
        if key not in self._leaves:
            self._leaves[key] = Leaf(value)
        return self._leaves[key]

    def branch(
        self, level: int, bounds: Sequence[int], children: Sequence[Node]
    ) -> Node:
        """Return the branch with these children, neighbours that agree joined."""
        if any(map(is_, children, islice(children, 1, None))):
            bounds, children = _unlike(bounds, children)
        if len(children) == 1:
            return children[0]
        key = (level, tuple(bounds), tuple(children))
        found = self._branches.get(key)
        if found is None:
            found = self._branches[key] = Branch(*key)
            if len(self._branches) % _CHECK == 0:
                self._check()
        return found

    def _check(self) -> None:
        if len(self._branches) > self._budget.nodes:
            raise OverrunError(f"more than {self._budget.nodes} branches")
        if thread_time() > self._deadline:
            raise OverrunError(f"more than {self._budget.seconds} s")

    def restart(self) -> None:
        """Start the clock of the budget anew, and forget intermediate results."""
        self._deadline = thread_time() + self._budget.seconds
        self._merged.clear()

    def spans(self, level: int, spans: Iterable[Span], value: Node) -> Node:
        """Return ``value`` where the field is in these disjoint, rising spans.

        Elsewhere it is False for a set and nothing for anything else.
        """
        other: Node = self.false if value is self.true else self.nothing
        bounds: list[int] = []
        children: list[Node] = []
        position = 0
        for first, last in spans:
            if first > position:
                bounds.append(first - 1)
                children.append(other)
            bounds.append(last)
            children.append(value)
            position = last + 1
        if position <= self.tops[level]:
            bounds.append(self.tops[level])
            children.append(other)
        return self.branch(level, bounds, children)

    def within(self, level: int, *spans: Span) -> Node:
        """Return the packets whose field is in one of these spans."""
        return self.spans(level, joined(spans), self.true)

    def merge(self, shortcut: _Shortcut, a: Node, b: Node) -> Node:
        """Combine point by point; ``shortcut`` knows the result for all leaves."""
        merged = self._merged.get(shortcut)
        if merged is None:
            merged = self._merged[shortcut] = _Merged(self, shortcut)
        return merged[a, b]

    def both(self, a: Node, b: Node) -> Node:
        """Return the packets that are in both sets."""
        return self.merge(self._both, a, b)

    def either(self, a: Node, b: Node) -> Node:
        """Return the packets that are in one of the sets."""
        return self.merge(self._either, a, b)

    def minus(self, a: Node, b: Node) -> Node:
        """Return the packets of ``a`` that are not in ``b``."""
        return self.merge(self._minus, a, b)

    def over(self, a: Node, b: Node) -> Node:
        """Return ``a``, and ``b`` where ``a`` says nothing: the first match."""
        return self.merge(self._over, a, b)

    def only(self, where: Node, what: Node) -> Node:
        """Return a diagram that is ``what`` in a set and says nothing elsewhere."""
        return self.merge(self._only, where, what)

    def _both(self, a: Node, b: Node) -> Node | None:
        if a is self.false or b is self.false:
            return self.false
        if a is self.true or a is b:
            return b
        return a if b is self.true else None

    def _either(self, a: Node, b: Node) -> Node | None:
        if a is self.true or b is self.true:
            return self.true
        if a is self.false or a is b:
            return b
        return a if b is self.false else None

    def _minus(self, a: Node, b: Node) -> Node | None:
        if a is self.false or b is self.true or a is b:
            return self.false
        return a if b is self.false else None

    def _over(self, a: Node, b: Node) -> Node | None:
        if a is self.nothing:
            return b
        return a if a.level == BOTTOM or b is self.nothing or a is b else None

    def _only(self, where: Node, what: Node) -> Node | None:
        if where is self.false or what is self.nothing:
            return self.nothing
        return what if where is self.true else None

    def fold(
        self, join: Callable[[Node, Node], Node], nodes: Iterable[Node], empty: Node
    ) -> Node:
        """Join neighbours, then neighbours of these: an order-keeping tree."""
        row = list(nodes)
        while len(row) > 1:
            pairs = [join(a, b) for a, b in zip(row[::2], row[1::2], strict=False)]
            row = pairs + row[len(pairs) * 2 :]
        return row[0] if row else empty

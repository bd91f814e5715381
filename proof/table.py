# SPDX-License-Identifier: GPL-2.0-or-later
"""A diagram from many boxes at once: what a set or a map of the kernel is."""

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from proof.diagram import Node, Span
from proof.space import Space

Row = tuple[tuple[Span, ...], Node]
"""A box, one span for each of the table's fields, and what holds in it."""


@dataclass(slots=True)
class _Builder:
    space: Space
    levels: Sequence[int]
    memo: dict[tuple[int, ...], Node] = field(default_factory=dict)

    def build(self, rows: Sequence[Row], depth: int) -> Node:
        if not rows:
            return self.space.nothing
        if depth == len(self.levels):
            return rows[0][1]
        groups: dict[Span, list[Row]] = {}
        for row in rows:
            groups.setdefault(row[0][depth], []).append(row)
        spans = sorted(groups)
        if any(a[1] >= b[0] for a, b in pairwise(spans)):
            return self.cut(rows, spans, depth)
        bounds: list[int] = []
        children: list[Node] = []
        for first, last in spans:
            if first and (not bounds or bounds[-1] < first - 1):
                bounds.append(first - 1)
                children.append(self.space.nothing)
            bounds.append(last)
            children.append(self.build(groups[first, last], depth + 1))
        return self.close(depth, bounds, children)

    def cut(self, rows: Sequence[Row], spans: Sequence[Span], depth: int) -> Node:
        """Build where spans overlap: between any two edges the rows are the same."""
        edges = sorted({e for first, last in spans for e in (first - 1, last)} - {-1})
        waiting = sorted(
            range(len(rows)), key=lambda i: rows[i][0][depth], reverse=True
        )
        inside: list[int] = []
        children: list[Node] = []
        for edge in edges:
            inside = [i for i in inside if rows[i][0][depth][1] >= edge]
            while waiting and rows[waiting[-1]][0][depth][0] <= edge:
                insort(inside, waiting.pop())
            here = [rows[i] for i in inside]
            key = (depth, *map(id, here))
            if key not in self.memo:
                self.memo[key] = self.build(here, depth + 1)
            children.append(self.memo[key])
        return self.close(depth, edges, children)

    def close(self, depth: int, bounds: list[int], children: list[Node]) -> Node:
        level = self.levels[depth]
        top = self.space.tops[level]
        if bounds[-1] < top:
            bounds.append(top)
            children.append(self.space.nothing)
        return self.space.branch(level, bounds, children)


def table(space: Space, levels: Sequence[int], rows: Sequence[Row]) -> Node:
    """Return the diagram of these boxes; the first that holds a packet decides.

    ``levels`` rise.  Where no box is, the diagram says nothing.
    """
    return _Builder(space, levels).build(rows, 0)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Interval decision diagrams: functions of a packet, each stored once.

A packet is a number for each field; a diagram maps it to a value.  A branch
cuts one field into intervals, fields come in a fixed order, and a branch that
exists is never built again: two diagrams of one space are the same function
exactly when they are the same object.  (Strehl and Thiele's interval decision
diagrams; Christiansen and Fleury used them for firewalls.)

A set of packets is a diagram of True and False.  The value None means "says
nothing": a rule is a diagram that says nothing where it does not match.
"""

from bisect import bisect_left
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

BOTTOM = 1 << 30
"""The level of a leaf: below all fields."""

Span = tuple[int, int]
"""First and last number of an interval."""


class OverrunError(Exception):
    """A diagram came to more than the budget: the answer is unknown."""


# Not frozen: half of the time of a proof would go into construction.
@dataclass(slots=True, eq=False)
class Leaf:
    """The diagram that gives every packet this value."""

    value: Hashable
    level: int = BOTTOM


@dataclass(slots=True, eq=False)
class Branch:
    """Child ``i`` holds up to ``bounds[i]``, inclusive; the last one to the end."""

    level: int
    bounds: tuple[int, ...]
    children: tuple["Node", ...]


Node = Leaf | Branch


@dataclass(frozen=True, slots=True)
class Budget:
    """How far to go: different branches in all, and seconds of processor time."""

    nodes: int = 2_000_000
    seconds: float = 20.0


def joined(spans: Iterable[Span]) -> Iterator[Span]:
    """Yield the same numbers as disjoint, rising spans."""
    held: Span | None = None
    for first, last in sorted(spans):
        if held is not None and first <= held[1] + 1:
            held = (held[0], max(held[1], last))
            continue
        if held is not None:
            yield held
        held = (first, last)
    if held is not None:
        yield held


def child_at(branch: Branch, number: int) -> Node:
    """Return the child that holds where the field has this value."""
    return branch.children[bisect_left(branch.bounds, number)]


def cells(branch: Branch) -> Iterator[tuple[Span, Node]]:
    """Yield each interval of a branch and the child that holds there."""
    starts = [-1, *branch.bounds]
    for (before, last), child in zip(pairwise(starts), branch.children, strict=True):
        yield (before + 1, last), child

# SPDX-License-Identifier: GPL-2.0-or-later
"""A client's matches as numbers, cut into runs that compile to a bounded size."""

import sys
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from rules.ground import Match
from rules.model import Action, AddressRange, family
from rules.remember import Remembered
from rules.services import LAST, Span, spans


@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """What a match covers and decides.

    ``prefixes`` are first and last addresses, None for every destination;
    ``services`` lie on the line of `rules.services`.  ``exact``: nothing but
    single ports of single addresses.  It is equal to itself alone, and the same
    match has the same one.
    """

    action: Action
    prefixes: tuple[Span, ...] | None
    services: tuple[Span, ...]
    exact: bool


Segment = tuple[Scope, ...]


def segments(
    matches: Iterable[Match], budget: int, length: int = sys.maxsize
) -> Iterator[Segment]:
    """Cut a list into consecutive segments of at most ``budget`` inherited steps.

    A single match may exceed it.  None has more than ``length`` matches, and one
    for every packet ends the list.
    """
    scopes = tuple(map(_scope, matches))
    whole = (place for place, scope in enumerate(scopes) if _is_whole(scope))
    scopes = scopes[: next(whole, len(scopes)) + 1]
    start = 0
    while start < len(scopes):
        run = scopes[start : start + length]
        end = _within(run, budget)
        yield run[:end]
        start += end


def _is_whole(scope: Scope) -> bool:
    return scope.prefixes is None and scope.services == ((0, LAST),)


@lru_cache(maxsize=64)
def _within(scopes: Segment, budget: int) -> int:
    """Return how many of the first scopes are within the budget; one always is."""
    meter = _Meter()
    for place, scope in enumerate(scopes):
        if meter.add(scope) > budget and place:
            return place
    return len(scopes)


@Remembered
def _scope(match: Match) -> Scope:
    networks, ports, types = match.networks, match.ports, match.icmp_types
    prefixes = None if networks is None else tuple(map(_span, networks))
    if ports is not None:
        services = spans(match.protocols, ((ports.first, ports.last),))
    elif types is not None:
        services = spans(match.protocols, tuple((t, t) for t in sorted(types)))
    else:
        services = spans(match.protocols, None)
    exact = (
        prefixes is not None
        and ports is not None
        and ports.first == ports.last
        and all(first == last for first, last in prefixes)
    )
    return Scope(match.action, prefixes, services, exact)


def _span(prefix: AddressRange) -> Span:
    first = int(prefix.network_address)
    return first, first + (1 << family(prefix).value - prefix.prefixlen) - 1


@dataclass(slots=True)
class _Meter:
    """Estimates, from above, what the scopes added so far come to.

    ``steps`` are those that a scope takes in the regions of others.
    """

    steps: int = 0
    prefixes: dict[Span, int] = field(default_factory=dict)
    firsts: list[int] = field(default_factory=list)
    sizes: set[int] = field(default_factory=set)
    everywhere: dict[Action, int] = field(
        default_factory=lambda: dict.fromkeys(Action, 0)
    )
    exceptions: set[tuple[Action, int]] = field(default_factory=set)

    def add(self, scope: Scope) -> int:
        """Return the steps, with those of this scope too."""
        if scope.prefixes is None:
            self.everywhere[scope.action] += len(scope.services)
        elif not scope.exact:
            self._except(scope.action)
            for prefix in scope.prefixes:
                self._nest(prefix, len(scope.services))
        return self.steps

    def _except(self, action: Action) -> None:
        others = sum(self.everywhere.values()) - self.everywhere[action]
        if (action, others) not in self.exceptions:
            self.exceptions.add((action, others))
            self.steps += others

    def _nest(self, prefix: Span, services: int) -> None:
        first, last = prefix
        size = last - first + 1
        inherited = 0
        if prefix not in self.prefixes:
            wider = [other for other in self.sizes if other > size]
            around = ((first & -other, (first | (other - 1))) for other in wider)
            inherited = sum(self.prefixes.get(other, 0) for other in around)
            insort(self.firsts, first)
            self.sizes.add(size)
        self.prefixes[prefix] = self.prefixes.get(prefix, 0) + services
        within = bisect_right(self.firsts, last) - bisect_left(self.firsts, first)
        self.steps += 2 * (inherited + services * (within - 1))

# SPDX-License-Identifier: GPL-2.0-or-later
"""Where routing sends packets: policy rules, tables, longest prefixes.

Sources: ``net/core/fib_rules.c``, ``net/ipv4/fib_rules.c``,
``net/ipv4/fib_trie.c`` and ``net/ipv6/fib6_rules.c`` of Linux.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import Enum

from proof.diagram import Node, Span
from proof.fields import DST, IPV4, SRC
from proof.routes import Prefix, Route, Routing, RoutingRule
from proof.space import Space
from proof.table import Row, table

_UNICAST, _THROW = 1, 9  # RTN_…
_HERE = frozenset({2, 3, 4, 5})  # RTN_LOCAL, …BROADCAST, …ANYCAST, …MULTICAST
_NO_WAY = frozenset({6, 7, 8})  # RTN_BLACKHOLE, …UNREACHABLE, …PROHIBIT
_TO_TABLE, _GOTO, _NOP = 1, 2, 3  # FR_ACT_…
_REFUSING = frozenset({6, 7, 8})  # FR_ACT_BLACKHOLE, …UNREACHABLE, …PROHIBIT


class Kind(Enum):
    """What routing decides."""

    OUT = "out"
    HERE = "here"
    NOWHERE = "nowhere"


@dataclass(frozen=True, slots=True)
class Way:
    """A decision; ``oif`` is the interface of `Kind.OUT`, else 0."""

    kind: Kind
    oif: int = 0


HERE, NOWHERE = Way(Kind.HERE), Way(Kind.NOWHERE)


@dataclass(frozen=True, slots=True)
class Question:
    """A look-up: fields of sender and target, interfaces, and the mark.

    ``iif`` "lo": the packet is this host's own.  ``mark`` None: not known.
    """

    source: str = SRC
    target: str = DST
    iif: str = ""
    oif: str = ""
    mark: int | None = 0


def spans(prefixes: Iterable[Prefix]) -> list[Span]:
    """Return the numbers of all addresses in some prefixes."""
    return [(int(p.network_address), int(p.broadcast_address)) for p in prefixes]


def _order(route: Route) -> tuple[int, int, int]:
    source = 0 if route.source is None else route.source.prefixlen
    return -route.prefix.prefixlen, -source, route.metric


def _told_apart(routes: Iterable[Route]) -> tuple[list[Route], list[Route]]:
    """Return the routes of which the first that fits is taken, and all others.

    Of equal ones IPv6 takes what is reachable (find_rr_leaf()).  Which link a
    link-local target is on is no question of routes.
    """
    usual: list[Route] = []
    others: list[Route] = []
    met: set[object] = set()
    for route in routes:
        key = route.prefix, route.source, route.metric
        near = route.prefix.is_link_local or route.prefix.is_multicast
        equal = key in met and route.prefix.version != IPV4 and not near
        (others if route.sometimes or equal else usual).append(route)
        met.add(key)
    return usual, others


@dataclass(slots=True)
class Router:
    """Looks routes up for all packets of one IP version.

    ``doubt`` makes a set of packets that nothing is known of, from a reason.
    """

    space: Space
    routing: Routing
    version: int
    doubt: Callable[[str], Node]
    memo: dict[Question, Node] = field(default_factory=dict)

    def look_up(self, asked: Question) -> Node:
        """Return a `Way` for each packet."""
        asked = self.plain(asked)
        if asked not in self.memo:
            found = self._from(asked, self._rules(), self._rules())
            rest = self.space.leaf(NOWHERE)
            self.memo[asked] = self.space.over(found, rest)
        return self.memo[asked]

    def plain(self, asked: Question) -> Question:
        """Return the same question without interfaces that no rule asks for."""
        rules = self.routing.rules
        iifs, oifs = {rule.iif for rule in rules}, {rule.oif for rule in rules}
        return replace(
            asked,
            iif=asked.iif if asked.iif in iifs else "",
            oif=asked.oif if asked.oif in oifs else "",
        )

    def _rules(self) -> list[RoutingRule]:
        family = 2 if self.version == IPV4 else 10  # AF_INET, AF_INET6
        own = (rule for rule in self.routing.rules if rule.version == family)
        return sorted(own, key=lambda rule: rule.priority)

    def _from(
        self, asked: Question, rules: list[RoutingRule], known: list[RoutingRule]
    ) -> Node:
        parts = []
        for rule in rules:
            applies = self._applies(asked, rule)
            if applies is self.space.false:
                continue
            parts.append(self.space.only(applies, self._does(asked, rule, known)))
        return self.space.fold(self.space.over, parts, self.space.nothing)

    def _does(
        self, asked: Question, rule: RoutingRule, known: list[RoutingRule]
    ) -> Node:
        if rule.action == _TO_TABLE:
            return self._table(asked, rule.table)
        if rule.action == _GOTO and rule.target is not None:
            later = [r for r in known if r.priority >= rule.target]
            if all(r.priority != rule.target for r in later):
                return self.space.nothing  # as if it were not there
            if rule.target > rule.priority:
                nowhere = self.space.leaf(NOWHERE)
                return self.space.over(self._from(asked, later, known), nowhere)
        if rule.action == _NOP:
            return self.space.nothing
        if rule.action in _REFUSING:
            return self.space.leaf(NOWHERE)
        doubt = self.doubt(f"routing rule {rule.priority}: action {rule.action}")
        return self.space.only(doubt, self.space.leaf(NOWHERE))

    def _applies(self, asked: Question, rule: RoutingRule) -> Node:
        space = self.space
        found: Node = space.true
        for name, wanted in ((asked.iif, rule.iif), (asked.oif, rule.oif)):
            if wanted is not None and wanted != name:
                found = space.false
        for name, prefix in (
            (asked.source, rule.source),
            (asked.target, rule.destination),
        ):
            if prefix is not None:
                where = space.within(space.levels[name], *spans([prefix]))
                found = space.both(found, where)
        if rule.mark or rule.mask:
            if asked.mark is None:
                doubt = self.doubt(f"routing rule {rule.priority}: its mark")
                found = space.both(found, doubt)
            elif (asked.mark ^ rule.mark) & rule.mask:
                found = space.false
        if rule.selectors and found is not space.false:
            kinds = ", ".join(map(str, sorted(rule.selectors)))
            reason = f"routing rule {rule.priority}: selector {kinds}"
            found = space.both(found, self.doubt(reason))
        return space.minus(space.true, found) if rule.inverted else found

    def _table(self, asked: Question, number: int) -> Node:
        space = self.space
        routes = [
            r
            for r in self.routing.routes
            if r.table == number and r.prefix.version == self.version
        ]
        usual, others = _told_apart(routes)
        found = self._rows(asked, usual)
        for route in others:
            taken = self.doubt(f"route {route.prefix} is taken, or another one")
            with_it = self._rows(asked, [route, *usual])
            found = space.over(space.only(taken, with_it), found)
        return found

    def _rows(self, asked: Question, routes: list[Route]) -> Node:
        space = self.space
        routes = sorted(routes, key=_order)
        names = [asked.target]
        if any(route.source is not None for route in routes):
            names.append(asked.source)
        levels = sorted(space.levels[name] for name in names)
        rows: list[Row] = []
        for route in routes:
            ends = {space.levels[asked.target]: spans([route.prefix])[0]}
            if len(levels) > 1:
                source = space.levels[asked.source]
                ends[source] = (0, space.tops[source])
                if route.source is not None:
                    ends[source] = spans([route.source])[0]
            rows.append((tuple(ends[level] for level in levels), self._route(route)))
        return table(space, levels, rows)

    def _route(self, route: Route) -> Node:
        space = self.space
        if route.kind in _HERE:
            return space.leaf(HERE)
        if route.kind in _NO_WAY:
            return space.leaf(NOWHERE)
        if route.kind == _THROW:
            return space.nothing
        if route.kind != _UNICAST or not route.interfaces:
            doubt = self.doubt(f"route {route.prefix} of kind {route.kind}")
            return space.only(doubt, space.leaf(NOWHERE))
        first, *others = sorted(route.interfaces)
        found: Node = space.leaf(Way(Kind.OUT, first))
        for other in others:
            chosen = self.doubt(f"route {route.prefix} has several next hops")
            taken = space.only(chosen, space.leaf(Way(Kind.OUT, other)))
            found = space.over(taken, found)
        return found

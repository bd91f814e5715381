# SPDX-License-Identifier: GPL-2.0-or-later
"""A mirror of the routing rules and of our two tables, kept by the kernel's events.

So a change of one client of a thousand costs the messages of one; the routes of a
link are compared again only after an event about them.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from errno import EACCES, ENOBUFS, ENODEV, ENOENT, ESRCH
from ipaddress import IPv4Network, IPv6Network, ip_address
from socket import AF_UNSPEC

from agent.netlink import ROUTE, Message, Netlink, Request, attribute, attributes
from agent.rtnetlink import (
    DEL_ADDRESS,
    DEL_LINK,
    DEL_RULE,
    GET_ROUTE,
    GET_RULE,
    LINK,
    NEW_ADDRESS,
    NEW_LINK,
    NEW_ROUTE,
    NEW_RULE,
    NUMBERS,
    UP,
    add_rule,
    delete_route,
    replace_route,
)
from rules.model import AddressRange, Family
from rules.routing import CLIENTS, END, UPSTREAM, Route, Rule

# linux/rtnetlink.h: RTMGRP_… for links, IPv4 addresses, routes and rules
_GROUPS = 0x1 | 0x10 | 0x40 | 0x80 | 0x400 | 1 << 18
OURS = frozenset({CLIENTS, UPSTREAM})

# struct rtmsg and struct fib_rule_hdr: family, dst_len, src_len, tos, table,
# then of a route protocol, scope, type, of a rule two unused bytes and action.
_HEADER = struct.Struct("=BBBBBBBBI")
_U32 = struct.Struct("=I")
_DST, _OIF, _GATEWAY, _PRIORITY, _TABLE = 1, 4, 5, 6, 15  # RTA_…
_RULE_IIF, _RULE_PRIORITY, _RULE_TABLE = 3, 6, 15  # FRA_…
_SUPPRESS, _PROTOCOL = 14, 21  # FRA_…, always there
_PLAIN = {_RULE_IIF, _RULE_PRIORITY, _RULE_TABLE, _SUPPRESS, _PROTOCOL}
_NOTHING = 0xFFFFFFFF  # of the value of _SUPPRESS
_TO_TABLE, _UNREACHABLE = 1, 7  # FR_ACT_…
_UNICAST = 1  # RTN_UNICAST
_IPV6_METRIC = 1024  # what the kernel makes of 0: IP6_RT_PRIO_USER
_FAMILIES = {number: version for version, number in NUMBERS.items()}

GONE = frozenset({ENOENT, ESRCH, ENODEV})

Place = tuple[int, AddressRange, int]
"""Table, prefix and metric: where the kernel has room for one route."""
ByLink = Mapping[int, Sequence[Route]]


class Routes:
    """What the kernel has, and the way to what is wanted.

    ``kernel`` is a socket to ask on.
    """

    def __init__(self, kernel: Netlink) -> None:
        self._kernel = kernel
        # A socket of its own: it can be read to its end at any time, without
        # taking a wake-up from anybody.
        self._events = Netlink(ROUTE, _GROUPS)
        self._routes: dict[Place, Route] = {}
        self._places: dict[int, set[Place]] = {}  # by link
        self._settled: dict[int, Sequence[Route]] = {}  # by link: these are there
        # By message, so that any rule can be removed; None is a rule that looks
        # at more than the incoming interface.
        self._rules: dict[bytes, Rule | None] = {}
        self._read()

    def close(self) -> None:
        """Close the socket for events."""
        self._events.close()

    def refresh(self) -> None:
        """Follow what happened since."""
        try:
            for message in self._events.events():
                self._take(message)
        except OSError as error:
            if error.errno != ENOBUFS:
                raise
            self._events.drop_events()
            self._read()

    def make(self, rules: frozenset[Rule], routes: ByLink, usable: set[int]) -> None:
        """Make rules and both tables these, by ``usable`` links, which are up."""
        self.refresh()
        wanted = {index: routes[index] for index in routes if index in usable}
        self._kernel.do(*self._changes(rules, wanted))

    def _changes(self, rules: frozenset[Rule], routes: ByLink) -> Iterator[Request]:
        # The last rule first: until the others are there, nothing is forwarded.
        missing = rules - set(self._rules.values())
        for rule in sorted(missing, key=lambda rule: -rule.priority):
            yield add_rule(rule)
        for index in self._settled.keys() - routes.keys():
            del self._settled[index]
        gone: list[Route] = []
        for index in routes.keys() | self._places.keys():
            if self._settled.get(index) != (wanted := routes.get(index, ())):
                more, less = self._differ(index, wanted)
                # EACCES: no IPv6 on that link yet; it is routed when it is put
                # into use, and its neighbours must not wait for that.
                for route in more:
                    yield replace(replace_route(route), fine=frozenset({EACCES}))
                gone += less
        yield from map(delete_route, gone)
        for body, present in self._rules.items():
            if present not in rules:
                yield Request(f"delete {present}", DEL_RULE, body, fine=GONE)

    def _differ(self, index: int, wanted: Sequence[Route]) -> tuple[list[Route], ...]:
        """Return the routes by a link that are missing, and those to delete."""
        routes = {_place(route): route for route in map(_as_read, wanted)}
        more = [r for place, r in routes.items() if self._routes.get(place) != r]
        places = self._places.get(index, set()) - routes.keys()
        if not more and not places:
            self._settled[index] = wanted
        return more, [self._routes[place] for place in places]

    def _read(self) -> None:
        for known in (self._routes, self._places, self._settled, self._rules):
            known.clear()
        for number in NUMBERS.values():
            header = _HEADER.pack(number, *bytes(8))
            for message in self._kernel.dump(Request("list rules", GET_RULE, header)):
                self._take(message)
            for table in OURS:
                for route in table_of(self._kernel, number, table):
                    self._put(route)

    def _take(self, message: Message) -> None:
        if message.kind in {NEW_LINK, DEL_LINK}:
            family, _, index, flags, _ = LINK.unpack_from(message.body)
            gone = message.kind == DEL_LINK or not flags & UP
            if family == AF_UNSPEC and gone:  # no event tells of its IPv4 routes
                self._drop(index)
        elif message.kind == DEL_ADDRESS:  # nor of those by a link without any
            self._drop(*_U32.unpack_from(message.body, 4))
        elif message.kind in {NEW_RULE, DEL_RULE}:
            self._take_rule(message)
        elif message.kind != NEW_ADDRESS:
            self._take_route(message)

    def _take_route(self, message: Message) -> None:
        route = _route(message.body)
        if message.kind == NEW_ROUTE and route.table in OURS:
            self._put(route)
        elif self._routes.get(_place(route)) == route:
            self._forget(_place(route))

    def _put(self, route: Route) -> None:
        place = _place(route)
        self._forget(place)
        self._settled.pop(route.index, None)
        self._routes[place] = route
        self._places.setdefault(route.index, set()).add(place)

    def _forget(self, place: Place) -> None:
        route = self._routes.pop(place, None)
        if route is not None:
            self._settled.pop(route.index, None)
            self._places[route.index].discard(place)
            if not self._places[route.index]:
                del self._places[route.index]

    def _take_rule(self, message: Message) -> None:
        # The flags tell whether its interface exists, which changes silently.
        body = message.body[:8] + bytes(4) + message.body[12:]
        found = attributes(body, _HEADER.size)
        # Those beyond our last rule, which matches everything, do no harm.
        if not 0 < _number(found, _RULE_PRIORITY) <= END:
            return
        if message.kind == NEW_RULE:
            self._rules[body] = _rule(body, found)
        else:
            self._rules.pop(body, None)

    def _drop(self, index: int) -> None:
        for place in tuple(self._places.get(index, ())):
            self._forget(place)


def table_of(
    kernel: Netlink, family: int, table: int, index: int = 0
) -> Iterator[Route]:
    """Yield the routes of a table, by one link unless ``index`` is 0."""
    body = _HEADER.pack(family, *bytes(8)) + attribute(_TABLE, _U32.pack(table))
    if index:
        body += attribute(_OIF, _U32.pack(index))
    # ENOENT: nobody has put a route into that table yet.
    asked = Request(f"list routes of table {table}", GET_ROUTE, body, fine=GONE)
    for message in kernel.dump(asked):
        yield _route(message.body)


def _route(body: bytes) -> Route:
    number, bits, _, _, table, _, _, kind, _ = _HEADER.unpack_from(body)
    found = attributes(body, _HEADER.size)
    network = IPv4Network if _FAMILIES[number] is Family.IPV4 else IPv6Network
    length = _FAMILIES[number].value // 8
    gateway = found.get(_GATEWAY)
    return Route(
        table=_number(found, _TABLE) or table,
        prefix=network((found.get(_DST, bytes(length)), bits)),
        index=_number(found, _OIF) if kind == _UNICAST else 0,
        gateway=None if gateway is None else ip_address(gateway),
        metric=_number(found, _PRIORITY),
    )


def _rule(body: bytes, found: dict[int, bytes]) -> Rule | None:
    number, to, source, tos, _, _, _, action, _ = _HEADER.unpack_from(body)
    plain = found.keys() <= _PLAIN and _number(found, _SUPPRESS) == _NOTHING
    if to or source or tos or not plain or action not in {_TO_TABLE, _UNREACHABLE}:
        return None
    iif = found.get(_RULE_IIF)
    return Rule(
        family=_FAMILIES[number],
        priority=_number(found, _RULE_PRIORITY),
        table=_number(found, _RULE_TABLE) if action == _TO_TABLE else None,
        iif=None if iif is None else iif.rstrip(b"\0").decode(),
    )


def _number(found: dict[int, bytes], kind: int) -> int:
    value = found.get(kind)
    return 0 if value is None else int(_U32.unpack(value)[0])


def _place(route: Route) -> Place:
    return route.table, route.prefix, route.metric


def _as_read(route: Route) -> Route:
    if route.metric == 0 and isinstance(route.prefix, IPv6Network):
        return replace(route, metric=_IPV6_METRIC)
    return route

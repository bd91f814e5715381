# SPDX-License-Identifier: GPL-2.0-or-later
"""What routing does with a packet that came in: it may never be forwarded at all.

Sources: ip_route_input_slow() and fib_validate_source() in ``net/ipv4``,
ip6_rcv_core() and ip6_forward() in ``net/ipv6``.
"""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import ip_network

from proof.diagram import Node
from proof.explore import leaves
from proof.fields import DST, IPV4, IPV6, SRC
from proof.forwarding import HERE, NOWHERE, Kind, Question, Router, Way, spans
from proof.relabel import relabel, where
from proof.routes import Link, Prefix
from proof.snapshot import Snapshot
from proof.table import Row, table

STRICT, LOOSE = 1, 2  # rp_filter (ip-sysctl)
UNICAST, LOCAL, BROADCAST, MULTICAST = 1, 2, 3, 5  # RTN_…
LOCAL_TABLE = 255


def _nets(*texts: str) -> tuple[Prefix, ...]:
    return tuple(map(ip_network, texts))


LOOPBACK4 = _nets("127.0.0.0/8")
# What Linux takes for no source of a packet on a wire.  That is less than RFC 1122,
# 3.2.1.3, and RFC 4291, 2.5, say: it forwards from 0.1.2.3 and from ::ffff:1.2.3.4.
NO_SOURCE = {
    4: _nets("0.0.0.0/32", "224.0.0.0/4", "255.255.255.255/32"),
    6: _nets("::1/128", "ff00::/8"),
}
NEVER_FORWARDED = {4: _nets(), 6: _nets("::/128", "fe80::/10")}
"""Sources of packets that a router keeps to their link (RFC 4291, 2.5.2, 2.5.6)."""
NO_TARGET = {4: _nets("0.0.0.0/32"), 6: _nets("::1/128")}
LINK_ONLY = {
    4: _nets("224.0.0.0/4", "255.255.255.255/32"),
    6: _nets("ff00::/8"),
}
"""Targets that are taken in or not, but never sent on here."""
LINK_LOCAL6 = _nets("fe80::/10")


@dataclass(slots=True)
class Incoming:
    """Routing of what comes in at one place."""

    net: Snapshot
    router: Router
    memo: dict[tuple[int, int | None], Node] = field(default_factory=dict)

    @property
    def _version(self) -> int:
        return self.router.version

    def setting(self, name: str, link: Link | None = None) -> int:
        """Return a number of sysctl, of an interface or of all; absent: 0."""
        scope = "all" if link is None else link.name
        key = f"ipv{self._version}/conf/{scope}/{name}"
        text = self.net.settings.get(key, "0")
        return int(text) if text.lstrip("-").isdigit() else 0

    def forwards(self, link: Link) -> bool:
        """Return whether what comes in by this interface may go on."""
        if self._version == IPV4:
            return bool(self.setting("forwarding", link))
        if self.setting("disable_ipv6", link):
            return False
        forced = self.setting("force_forwarding", link)
        return bool(self.setting("forwarding") or forced)

    def way(self, link: Link, mark: int | None) -> Node:
        """Return a `Way` for each packet that comes in by an interface."""
        key = (link.index, mark)
        if key not in self.memo:
            space, asked = self.router.space, Question(iif=link.name, mark=mark)
            live = self.router.look_up(asked)
            if self._version == IPV6:
                near = space.only(self._scope(), self._near(link).look_up(asked))
                live = space.over(near, live)
            valid = self._validated(link, asked, live)
            self.memo[key] = self._ruled(link, valid)
        return self.memo[key]

    def _near(self, link: Link) -> Router:
        """Return who knows no route to other links (ip6_route_input_lookup())."""
        routing = self.net.routing
        near = tuple(
            route
            for route in routing.routes
            if link.index in route.interfaces or route.kind not in {UNICAST, LOCAL}
        )
        return replace(self.router, routing=replace(routing, routes=near), memo={})

    def any_way(self, link: Link, choice: str) -> Node:
        """Return the same for any routing table: field ``choice`` is the interface.

        What is this host's own stays so.
        """
        space = self.router.space
        level = space.field(choice, 32)
        out = [
            space.spans(level, [(other.index,) * 2], space.leaf(Way(Kind.OUT, n)))
            for other in sorted(self.net.routing.links, key=lambda one: one.index)
            if (n := other.index) and other.name != "lo"
        ]
        free = space.fold(space.over, out, space.nothing)
        free = space.over(free, space.leaf(NOWHERE))
        own = [a.address for a in self.net.routing.addresses]
        here = [(int(a),) * 2 for a in own if a.version == self._version]
        local = space.within(space.levels[DST], *here)
        found = space.over(space.only(local, space.leaf(HERE)), free)
        return self._ruled(link, found)

    def kinds(self, link: Link) -> Node:
        """Return what ``fib daddr . iif type`` is for each packet (``nft_fib``)."""
        space = self.router.space
        routing = self.net.routing
        level = space.levels[DST]
        rows: list[Row] = []
        if self._version == IPV6:
            own = [a.address for a in routing.addresses if a.index == link.index]
            here = [(int(a),) * 2 for a in own if a.version == IPV6]
            rows += (((one,), space.leaf(LOCAL)) for one in here)
            rows += (((s,), space.leaf(MULTICAST)) for s in spans(LINK_ONLY[IPV6]))
        else:
            group, everywhere = spans(LINK_ONLY[IPV4])
            nobody = spans(NO_TARGET[IPV4])[0]
            rows += (((s,), space.leaf(BROADCAST)) for s in (nobody, everywhere))
            rows.append(((group,), space.leaf(MULTICAST)))
            local = [r for r in routing.routes if r.table == LOCAL_TABLE]
            known = [r for r in local if r.prefix.version == IPV4]
            for route in sorted(known, key=lambda r: -r.prefix.prefixlen):
                mine = link.index in route.interfaces
                kind = space.leaf(route.kind if mine else UNICAST)
                rows.append((tuple(spans([route.prefix])), kind))
        found = table(space, [level], rows)
        return space.over(found, space.leaf(UNICAST))

    def _ruled(self, link: Link, found: Node) -> Node:
        space = self.router.space
        source, target = space.levels[SRC], space.levels[DST]
        parts = []
        if link.name != "lo":
            refused = [*NO_SOURCE[self._version]]
            untrue = [*NO_TARGET[self._version]]
            if self._version == IPV4 and not self._localnet(link):
                refused += LOOPBACK4
                untrue += LOOPBACK4
            bad = space.either(
                space.within(source, *spans(refused)),
                space.within(target, *spans(untrue)),
            )
            parts.append(space.only(bad, space.leaf(NOWHERE)))
        group = space.within(target, *spans(LINK_ONLY[self._version]))
        parts.append(space.only(group, space.leaf(HERE)))
        if self._version == IPV6:
            found = self._link_local(link, found)
        stays = space.within(source, *spans(NEVER_FORWARDED[self._version]))
        out = {w for w in leaves(found) if isinstance(w, Way) and w.kind is Kind.OUT}
        kept = space.both(stays, where(space, found, out))
        parts += [space.only(kept, space.leaf(NOWHERE)), found]
        return space.fold(space.over, parts, space.nothing)

    def _link_local(self, link: Link, found: Node) -> Node:
        """Keep link-local targets on their link, as a strict look-up does."""
        space = self.router.space

        def kept(way: object) -> object:
            elsewhere = isinstance(way, Way) and way.oif not in {0, link.index}
            return NOWHERE if elsewhere else way

        there = space.only(self._scope(), relabel(space, found, kept))
        return space.over(there, found)

    def _scope(self) -> Node:
        """Return the packets to link-local targets."""
        space = self.router.space
        return space.within(space.levels[DST], *spans(LINK_LOCAL6))

    def _localnet(self, link: Link) -> bool:
        names = "route_localnet"
        return bool(self.setting(names) or self.setting(names, link))

    def _validated(self, link: Link, asked: Question, found: Node) -> Node:
        """Drop what has a source that is this host's, or that is elsewhere."""
        if self._version == IPV6 or link.name == "lo":
            return found
        return self.router.space.fold(
            self.router.space.over, self._checked(link, asked, found), found
        )

    def _checked(self, link: Link, asked: Question, found: Node) -> Iterator[Node]:
        space = self.router.space
        names = {one.index: one.name for one in self.net.routing.links}
        strictness = max(self.setting("rp_filter"), self.setting("rp_filter", link))
        local = self.setting("accept_local") or self.setting("accept_local", link)
        several: dict[Question, set[Hashable]] = {}
        for way in leaves(found):
            if isinstance(way, Way) and way.kind is not Kind.NOWHERE:
                iif = names.get(way.oif, "lo")
                back = replace(asked, source=DST, target=SRC, iif=iif, mark=0)
                several.setdefault(self.router.plain(back), set()).add(way)
        for back, ways in several.items():

            def passes(other: Hashable) -> bool:
                if not isinstance(other, Way):
                    return False
                if other.kind is Kind.HERE:
                    return bool(local)
                if strictness == STRICT:
                    return other == Way(Kind.OUT, link.index)
                return strictness != LOOSE or other.kind is Kind.OUT

            good = relabel(space, self.router.look_up(back), passes)
            here = space.both(where(space, found, ways), good)
            yield space.only(here, found)
        gone = {w for w in leaves(found) if isinstance(w, Way)} - {NOWHERE}
        rest = where(space, found, gone)
        yield space.only(rest, space.leaf(NOWHERE))

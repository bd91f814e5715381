# SPDX-License-Identifier: GPL-2.0-or-later
"""Links and routes: what makes the rules' world reachable, after the rules."""

import logging
from collections.abc import Collection
from dataclasses import dataclass, field

from agent.ports import Firewall, Links, NetlinkError
from rules.carriers import carrier_guard
from rules.facts import CLIENT_GROUP, Client, Facts, Tunnel, Uplink
from rules.flows import Allowed
from rules.guard import uplink_guard
from rules.model import Address
from rules.routing import routing

log = logging.getLogger(__name__)

Falls = frozenset[tuple[int, int, bool]]
"""Index, how often it went down, and whether it is up, of each way out."""


@dataclass(slots=True)
class Network:
    """The links as they were left; each is configured once, by its index."""

    links: Links
    firewall: Firewall
    pin_gateway: bool = False
    _applied: tuple[Allowed, Facts, tuple[Address, ...], Falls] | None = None
    _vifs: dict[int, Client] = field(default_factory=dict)  # by index, in use
    _vif_gateways: tuple[Address, ...] = ()
    _uplinks: frozenset[Uplink] = frozenset()
    _falls: dict[int, int] = field(default_factory=dict)
    _tunnel: Tunnel | None = None
    _guarded: frozenset[tuple[str, int]] = frozenset()

    def unguard(self) -> None:
        """Take no egress guard for granted any more."""
        self._guarded = frozenset()

    def guard(self, facts: Facts) -> None:
        """Put the egress guard on what is new to leave by, before it is used."""
        present = frozenset((way.name, way.index) for way in facts.ways)
        outer = frozenset((uplink.name, uplink.index) for uplink in facts.uplinks)
        for name, index in sorted((present | outer) - self._guarded):
            plain = (name, index) in present
            self.firewall.load(uplink_guard(name) if plain else carrier_guard(name))
        self._guarded = present | outer

    def newcomers(self, facts: Facts) -> tuple[Client, ...]:
        """Return the clients whose vif no agent has put into use yet."""
        links = ((c, self.links.by_name(c.vif)) for c in facts.clients)
        return tuple(c for c, link in links if link and link.group != CLIENT_GROUP)

    def apply(
        self, allowed: Allowed, facts: Facts, vif_gateways: tuple[Address, ...]
    ) -> None:
        """Make routing what the state calls for; configure and up new links.

        ``vif_gateways`` are this domain's addresses towards its clients.  Facts
        that are the same object were not looked at anew: nothing is done twice.
        Raises the first `NetlinkError` after everything was tried.
        """
        before = self._applied
        falls = self._falls_of(facts)
        asked = (allowed, facts, vif_gateways, falls)
        if before is not None and before[1] is facts and before == asked:
            return
        self._applied = None
        wanted = routing(allowed, facts)
        # Who sets an uplink down means it; but the kernel then forgets addresses
        # and routes, which nobody but us gives back once it is up again, be it so
        # soon that it was never seen down.
        known = {
            uplink
            for uplink in self._uplinks
            if self._falls.get(uplink.index, 0) == _count(falls, uplink.index)
            or self._is_down(uplink.name)
        }
        if new := [u for u in facts.uplinks if u not in known]:
            # The rules that speak of an uplink come before it is up.
            self.links.route(wanted)
        for uplink in new:
            if facts.configured:
                self.links.connect(uplink, pinned=self.pin_gateway)
            else:
                self.links.adopt(uplink)
            self._falls[uplink.index] = _count(falls, uplink.index)
        self._uplinks = frozenset(facts.uplinks)
        self._use(facts, falls)
        self.links.route(wanted)
        self._attach(facts.clients, vif_gateways)
        self._applied = (allowed, facts, vif_gateways, self._falls_of(facts))

    def _use(self, facts: Facts, falls: Falls) -> None:
        """Configure the tunnel, which nobody but us sets up or down."""
        tunnel = facts.tunnel
        if tunnel is None and self._tunnel is not None:
            self.links.rest(self._tunnel)
        if tunnel is not None:
            count = _count(falls, tunnel.index)
            fell = self._falls.get(tunnel.index, 0) != count
            if fell or tunnel != self._tunnel or self._is_down(tunnel.name):
                self._tunnel = None
                self.links.tunnel(tunnel, facts.resolvers)
                self._falls[tunnel.index] = count
        self._tunnel = tunnel

    def _is_down(self, name: str) -> bool:
        link = self.links.by_name(name)
        return link is not None and not link.up

    def _falls_of(self, facts: Facts) -> Falls:
        """Return how often each way out went down, and which are down."""
        names = [way.name for way in (*facts.uplinks, *facts.ways)]
        links = (self.links.by_name(name) for name in names)
        return frozenset((x.index, x.falls, x.up) for x in links if x)

    def _attach(
        self, clients: Collection[Client], gateways: tuple[Address, ...]
    ) -> None:
        if gateways != self._vif_gateways:
            self._vifs.clear()
            self._vif_gateways = gateways
        used, self._vifs = self._vifs, {}
        failed: list[NetlinkError] = []
        for client in clients:
            known = used.get(client.index)
            try:
                if known is not client and known != client:
                    log.info("client at %s", client.vif)
                    self.links.attach(client, gateways)
                self._vifs[client.index] = client
            except NetlinkError as error:
                failed.append(error)
        if failed:
            raise failed[0]


def _count(falls: Falls, index: int) -> int:
    return next((count for known, count, _ in falls if known == index), 0)

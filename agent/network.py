# SPDX-License-Identifier: GPL-2.0-or-later
"""Links and routes: what makes the rules' world reachable, after the rules."""

import logging
from collections.abc import Collection
from dataclasses import dataclass, field

from agent.ports import CLIENT_GROUP, Firewall, Links, NetlinkError
from rules.facts import Client, Facts, Uplink
from rules.flows import Allowed
from rules.guard import uplink_guard
from rules.model import Address
from rules.routing import routing

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Network:
    """The links as they were left; each is configured once, by its index."""

    links: Links
    firewall: Firewall
    pin_gateway: bool = False
    _applied: tuple[Allowed, Facts, tuple[Address, ...]] | None = None
    _vifs: set[Client] = field(default_factory=set)
    _vif_gateways: tuple[Address, ...] = ()
    _uplinks: frozenset[Uplink] = frozenset()
    _guarded: frozenset[tuple[str, int]] = frozenset()

    def unguard(self) -> None:
        """Take no egress guard for granted any more."""
        self._guarded = frozenset()

    def guard(self, facts: Facts) -> None:
        """Put the egress guard on uplinks that are new, before they are used."""
        present = frozenset((uplink.name, uplink.index) for uplink in facts.uplinks)
        for name, _ in sorted(present - self._guarded):
            self.firewall.load(uplink_guard(name))
        self._guarded = present

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
        asked = (allowed, facts, vif_gateways)
        if before is not None and before[1] is facts and before == asked:
            return
        self._applied = None
        wanted = routing(allowed, facts)
        if new := [u for u in facts.uplinks if u not in self._uplinks]:
            # The rules that speak of an uplink come before it is up.
            self.links.route(wanted)
        for uplink in new:
            if facts.configured:
                self.links.connect(uplink, pinned=self.pin_gateway)
            else:
                self.links.adopt(uplink)
        self._uplinks = frozenset(facts.uplinks)
        self.links.route(wanted)
        self._attach(facts.clients, vif_gateways)
        self._applied = asked

    def _attach(
        self, clients: Collection[Client], gateways: tuple[Address, ...]
    ) -> None:
        if gateways != self._vif_gateways:
            self._vifs.clear()
            self._vif_gateways = gateways
        self._vifs.intersection_update(clients)
        failed: list[NetlinkError] = []
        for client in clients:
            if client not in self._vifs:
                log.info("client at %s", client.vif)
                try:
                    self.links.attach(client, gateways)
                    self._vifs.add(client)
                except NetlinkError as error:
                    failed.append(error)
        if failed:
            raise failed[0]

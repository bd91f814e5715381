# SPDX-License-Identifier: GPL-2.0-or-later
"""Cut the live flows that lost permission, and no other.

The rules judge each packet of the original direction anew, but replies pass by
their flow's state, so a flow that is no longer allowed must go.  It is judged
by the same meaning as a packet (`rules.decide`), on the address the client
wrote, so that DNS, which is translated, is judged as DNS.
"""

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from agent.ports import Conntrack, LiveFlow
from agent.programs import Programs
from rules.decide import DNS_PORT, Packet
from rules.facts import Client, Facts
from rules.flows import BY_RULES, CLIENT_DNS, Allowed
from rules.model import Address

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Cutter:
    """Remembers what was in force, to know whose flows to look at."""

    conntrack: Conntrack
    _allowed: Allowed = frozenset({BY_RULES})
    _facts: Facts | None = None

    def forget(self, clients: Iterable[Client]) -> None:
        """Cut every flow of these clients' addresses, before they are in use.

        An address may come back with another domain behind it.
        """
        addresses = [a for client in clients for a in client.addresses]
        if addresses:
            self.conntrack.flush(*addresses)

    def cut(
        self,
        allowed: Allowed,
        facts: Facts,
        programs: Programs,
        changed: Iterable[Address],
    ) -> None:
        """Cut what ``changed`` rules, another state or other facts forbid.

        The first time every flow is looked at: nobody knows what an agent
        before this one had in force.
        """
        before, tightened = self._facts, self._allowed - allowed
        known = {a for client in facts.clients for a in client.addresses}
        if before is not None and before is not facts:
            self.forget(set(before.clients) - set(facts.clients))
        if BY_RULES in tightened or _sources(before) - _sources(facts):
            self.forget(facts.clients)
        elif before is None or before.dns != facts.dns or CLIENT_DNS in tightened:
            self._judge(known, facts, programs, known)
        else:
            self._judge(known.intersection(changed), facts, programs, known)
        # Only now: what fails half-way is done again.
        self._facts, self._allowed = facts, allowed

    def _judge(
        self,
        looked_at: Collection[Address],
        facts: Facts,
        programs: Programs,
        known: set[Address],
    ) -> None:
        if not looked_at:
            return
        for flow in tuple(self.conntrack.flows(*looked_at)):
            if not _stays(flow, facts, programs, known):
                self.conntrack.delete(flow)


def _sources(facts: Facts | None) -> set[tuple[int, Address]]:
    """Return what clients' flows are translated to: uplink and its address."""
    uplinks = facts.uplinks if facts else ()
    return {(uplink.index, own) for uplink in uplinks for own in uplink.own}


def _stays(
    flow: LiveFlow, facts: Facts, programs: Programs, clients: set[Address]
) -> bool:
    if flow.dst in clients:
        return True  # opened by a custom-forward rule, not by the lists
    packet = Packet(flow.dst, flow.proto, flow.port, flow.icmp_type)
    if not programs.allows(flow.src, packet):
        return False
    # A translated flow keeps its resolver for as long as it lives.
    real = facts.dns.get(flow.dst, flow.dst)
    return flow.port != DNS_PORT or flow.answered_by == real

# SPDX-License-Identifier: GPL-2.0-or-later
"""Cut the live flows that lost permission, and no other.

The rules judge each packet of the original direction anew, but replies pass by
their flow's state, so a flow that is no longer allowed must go.  It is judged
by the same meaning as a packet (`rules.decide`), on the address the client
wrote, so that DNS, which is translated, is judged as DNS.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from agent.ports import Conntrack, LiveFlow
from agent.programs import Programs
from rules.decide import DNS_PORT, Packet
from rules.facts import Client, Facts
from rules.flows import BY_RULES, NAMING, SERVING, Allowed
from rules.ground import Ground, Match, losses
from rules.model import Address
from rules.redirects import CONTROL

log = logging.getLogger(__name__)

TCP = 6  # IANA number
FEW = 8
"""So many packets are judged and looked for sooner than all flows are looked at."""


@dataclass(slots=True)
class Cutter:
    """Remembers what was in force, to know whose flows to look at."""

    conntrack: Conntrack
    _allowed: Allowed = frozenset({BY_RULES})
    _facts: Facts | None = None
    _known: frozenset[Address] = frozenset()
    _clean: frozenset[Address] = frozenset()
    _judged: dict[Address, Ground] = field(default_factory=dict)

    def forget(self, clients: Iterable[Client]) -> None:
        """Cut every flow of these clients' addresses, before they are in use.

        An address may come back with another domain behind it.
        """
        self._clean = self._flush(clients)

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
        before, lost = self._facts, _lost(self._allowed, allowed)
        clean, self._clean = self._clean, frozenset()
        clients = facts.clients
        same = before is not None and before.clients is clients
        if before is None or not same or before.redirects != facts.redirects:
            self._known = frozenset(a for c in clients for a in c.addresses)
            if before is not None:
                self._flush(_gone(before.clients, clients))
                self._end(_moved(before, facts), facts)
            # Unlike keys(), a set of a dict is not hashed anew.
            for gone in set(self._judged) - self._known:
                del self._judged[gone]
        concerned = self._known.intersection(changed)
        if SERVING in lost or _ways(before) - _ways(facts):
            self._end(facts.clients, facts)
        elif before is None or before.dns != facts.dns or NAMING in lost:
            self._judge(self._known, facts, programs)
        else:
            unclear = self._unclear(concerned - clean, facts, programs)
            self._judge(frozenset(unclear), facts, programs)
        # Only now: what fails half-way is done again.
        self._facts, self._allowed = facts, allowed
        self._judged |= {address: programs[address].ground for address in concerned}

    def _unclear(
        self, addresses: Iterable[Address], facts: Facts, programs: Programs
    ) -> Iterator[Address]:
        """Yield whose flows have to be looked at one by one, which takes a while.

        Of the others the kernel finds and cuts those that lost permission.
        """
        kept = self._known | facts.here
        for address in addresses:
            before = self._judged.get(address)
            meaning = programs[address].ground
            lost = None if before is None else losses(before, meaning)
            packets = None if lost is None else _packets(lost)
            if packets is None or not self.conntrack.end(
                address,
                (
                    packet
                    for packet in packets
                    if packet.dst not in kept and not programs.allows(address, packet)
                ),
            ):
                yield address

    def _flush(self, clients: Iterable[Client]) -> frozenset[Address]:
        addresses = [a for client in clients for a in client.addresses]
        if addresses:
            self.conntrack.flush(*addresses)
        return frozenset(addresses)

    def _end(self, clients: Iterable[Client], facts: Facts) -> None:
        """Cut their flows, but those that the agent itself answers (`CONTROL`).

        One of these may have asked for all others to be cut.
        """
        asking = {client for client in clients if _may_ask(client, facts)}
        self._flush(set(clients) - asking)
        addresses = [address for client in asking for address in client.addresses]
        for flow in tuple(self.conntrack.flows(*addresses)) if addresses else ():
            if flow.dst not in facts.here or (flow.proto, flow.port) != (TCP, CONTROL):
                self.conntrack.delete(flow)

    def _judge(
        self,
        looked_at: frozenset[Address],
        facts: Facts,
        programs: Programs,
    ) -> None:
        if not looked_at:
            return
        found = self.conntrack.flows(*looked_at)
        # All at once: a client that has many must not keep us from the others.
        self.conntrack.delete(
            *[f for f in found if not _stays(f, facts, programs, self._known)]
        )


def _gone(before: Iterable[Client], clients: Iterable[Client]) -> set[Client]:
    """Return who is not there any more; most are the very same objects."""
    same = set(map(id, clients))
    others = {client for client in before if id(client) not in same}
    return others.difference(clients) if others else others


def _lost(before: Allowed, after: Allowed) -> list[Allowed]:
    """Return the kinds of flows of which there were some, and are none."""
    kinds = (SERVING, NAMING)
    return [kind for kind in kinds if before & kind and not after & kind]


def _ways(facts: Facts | None) -> set[int]:
    """Return the uplinks; of an address that they lose the kernel cuts the flows."""
    return {way.index for way in facts.ways} if facts else set()


def _moved(before: Facts, facts: Facts) -> set[Client]:
    """Return the clients whose flows end at another port now."""
    if before.redirects == facts.redirects:
        return set()
    return {
        client
        for client in set(before.clients) & set(facts.clients)
        if before.redirects.get(client.index) != facts.redirects.get(client.index)
    }


def _may_ask(client: Client, facts: Facts) -> bool:
    port = facts.redirects.get(client.index)
    return port is not None and port.control != 0


def _packets(matches: Iterable[Match]) -> list[Packet] | None:
    """Return all that match, None if they are not `FEW` of single hosts and ports."""
    found: list[Packet] = []
    for match in matches:
        networks, protocols, ports = match.networks, match.protocols, match.ports
        if not (networks and protocols and ports) or ports.first != ports.last:
            return None
        if any(network.num_addresses > 1 for network in networks):
            return None
        found += [
            Packet(network.network_address, number, ports.first)
            for network in networks
            for number in protocols
        ]
    return found if len(found) <= FEW else None


def _stays(
    flow: LiveFlow, facts: Facts, programs: Programs, clients: frozenset[Address]
) -> bool:
    if flow.dst in clients or flow.dst in facts.here:
        return True  # allowed by a custom- chain or the skeleton, not by the lists
    packet = Packet(flow.dst, flow.proto, flow.port, flow.icmp_type)
    if not programs.allows(flow.src, packet):
        return False
    if facts.redirects:
        return True  # it ends here, whomever it asked
    # A translated flow keeps its resolver for as long as it lives.
    real = facts.dns.get(flow.dst, flow.dst)
    return flow.port != DNS_PORT or flow.answered_by == real

# SPDX-License-Identifier: GPL-2.0-or-later
"""What the facts say of the world around a tunnel."""

from dataclasses import dataclass
from ipaddress import ip_network

from rules.facts import Facts
from rules.model import Address, AddressRange, Family, family


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The uplinks and the clients, as far as they concern a tunnel.

    ``links`` tells one set of uplinks from another, ``own`` are all addresses
    of this domain, ``clients`` the networks that clients are in, ``families``
    the IP versions that the uplinks have, ``resolvers`` those behind them.
    """

    ready: bool = False
    links: frozenset[tuple[int, Address]] = frozenset()
    own: frozenset[Address] = frozenset()
    clients: tuple[AddressRange, ...] = ()
    families: frozenset[Family] = frozenset()
    resolvers: frozenset[Address] = frozenset()

    @property
    def lacking(self) -> str:
        """What is missing for any tunnel, in words for people, or nothing."""
        return "" if self.ready else "no uplink"


def surroundings(facts: Facts) -> Surroundings:
    """Return what is around, from facts that no driver has added to yet."""
    ready = [uplink for uplink in facts.uplinks if uplink.own and uplink.gateways]
    ours = {a for uplink in facts.uplinks for a in uplink.own}
    versions = {family(gateway) for uplink in ready for gateway in uplink.gateways}
    hosts = (ip_network(address) for address in sorted(facts.connected, key=str))
    return Surroundings(
        ready=bool(ready),
        links=frozenset((u.index, a) for u in ready for a in u.own),
        own=facts.here.union(ours),
        clients=(*map(ip_network, sorted(facts.internal)), *hosts),
        families=frozenset(versions),
        resolvers=facts.resolvers,
    )

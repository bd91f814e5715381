# SPDX-License-Identifier: GPL-2.0-or-later
"""What the controller wants of every kernel, in the words of a proof."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

from controller.addresses import MAC
from controller.assertions import Assertion
from controller.domains import Domain, Domains, Nic
from controller.nowhere import RESOLVERS
from proof.claims import (
    Lists,
)
from proof.snapshot import Snapshot
from proof.world import Client, Place, World
from rules.decide import Names
from rules.ground import ground
from rules.model import (
    Address,
    Family,
)

ETH0 = "eth0"  # the interface of a domain that leads to its netvm
VERSIONS = {4: Family.IPV4, 6: Family.IPV6}


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that is wanted, at one time.

    ``serials`` has the vif of each domain that is linked; ``names`` and ``now`` are
    those of `controller.explain.explain`; ``closed`` has the state of each domain
    that says that it lets nobody out; ``users`` whom the uplinks of each domain with
    daemons carry.
    """

    domains: Domains
    serials: Mapping[str, int]
    names: Names
    now: int
    asserted: tuple[Assertion, ...] = ()
    closed: Mapping[str, str] = field(default_factory=dict)
    users: Mapping[str, frozenset[int]] = field(default_factory=dict)

    def shut(self, name: str) -> str | None:
        """Return why a domain reaches nobody now, None if its way is open."""
        hops = (hop.name for hop in self.domains.path(name))
        return next(
            (f"{h} is {self.closed[h]}" for h in hops if h in self.closed), None
        )


def world(scene: Scene, nets: Mapping[str, Snapshot]) -> World:
    """Return the domains of which there is a snapshot, and how they are linked."""
    providers = [d for d in scene.domains if d.provides_network and d.name in nets]
    return World(
        {d.name: _place(scene, d, nets[d.name]) for d in providers},
        {d.name: nets[d.name] for d in scene.domains if d.name in nets},
    )


def _place(scene: Scene, domain: Domain, net: Snapshot) -> Place:
    clients = {
        f"vif{scene.serials[client.name]}.0": Client(
            client.name, _addresses(scene, client), MAC
        )
        for client in scene.domains.clients(domain.name)
        if client.name in scene.serials
    }
    uplink = domain.uplink.name if isinstance(domain.uplink, Nic) else ETH0
    tunnels = None if domain.personality is None else domain.personality.tunnels
    carriers = None if tunnels is None else frozenset(tunnels)
    return Place(net, clients, {uplink: domain.netvm}, carriers)


def _addresses(scene: Scene, domain: Domain) -> tuple[Address, ...]:
    both = scene.domains.has_ipv6(domain.name)
    return (domain.ip4, domain.ip6) if both else (domain.ip4,)


def lists(scene: Scene, domain: Domain, netvm: Snapshot | None = None) -> Lists:
    """Return what the rules of a domain come to now, for each IP version.

    ``specialtarget=dns`` is also what the kernel of its ``netvm`` leads questions
    to: who may ask a virtual resolver asks that one.
    """
    known = RESOLVERS if netvm is None else RESOLVERS | frozenset(_resolvers(netvm))
    return {
        version: ground(domain.policy, family, scene.names, known, scene.now)
        for version, family in VERSIONS.items()
        if version in versions(scene, domain)
    }


def _resolvers(netvm: Snapshot) -> Iterator[Address]:
    """Yield the resolvers that stand behind the virtual ones (`rules.ruleset`)."""
    for place, found in netvm.bytecode.sets.items():
        if (place.table, place.name) == ("qubes", "dns"):
            for element in found.elements:
                if isinstance(element.value, bytes):
                    yield ip_address(element.value)


def leads_on(place: Place, version: int) -> bool:
    """Whether a domain has an address of an IP version to send on from."""
    ways = place.carriers if place.carriers is not None else place.uplinks.keys()
    routing = place.net.routing
    indexes = {link.index for link in routing.links if link.name in ways}
    own = (each for each in routing.addresses if each.index in indexes)
    return any(
        a.address.version == version and not a.address.is_link_local for a in own
    )


def versions(scene: Scene, domain: Domain) -> set[int]:
    """Return the IP versions that a domain has, 4 and 6."""
    return {address.version for address in _addresses(scene, domain)}

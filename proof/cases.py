# SPDX-License-Identifier: GPL-2.0-or-later
"""What would break a claim: at which door, in which state, which packets."""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

from proof.diagram import Node
from proof.fields import ESTABLISHED, RELATED, SRC
from proof.realm import Door, Realm
from proof.relabel import relabel
from proof.scope import ordinary
from proof.tracked import REPLIES
from proof.way_out import Sent
from proof.world import Client

# A packet in these states belongs to a flow that was let through when it was new.
LATER = frozenset({ESTABLISHED, RELATED, *REPLIES})


class UnconnectedError(LookupError):
    """A claim about a domain that is not connected, or not known."""


@dataclass(frozen=True, slots=True)
class Case:
    """Packets that come in at a door; those of ``scope`` must not be ``wrong``.

    ``passes``: what is wrong gets through, or (False) does not, at the first
    domain.  ``witness`` are the packets that show that the claim is about
    something.
    """

    door: Door
    scope: Node
    wrong: Node
    witness: Node
    client: Client | None = None
    passes: bool | None = True

    @property
    def later(self) -> bool:
        """Whether such a packet needs a flow that was let through before."""
        return self.door.ct in LATER


@dataclass(frozen=True, slots=True)
class Cases:
    """All that would break a claim, the domains it is about, and what it takes."""

    all: Iterable[Case]
    domains: tuple[str, ...]
    assumed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class At:
    """A client at one of its doors."""

    domain: str
    vif: str
    client: Client

    def door(self, ct: int, *, any_route: bool = False) -> Door:
        """Return it as the way in for packets."""
        return Door(self.domain, self.vif, ct, any_route)


def own(realm: Realm, client: Client) -> Node:
    """Return the packets that have an address of the client as source."""
    addresses = [a for a in client.addresses if a.version == realm.version]
    numbers = [(int(a), int(a)) for a in addresses]
    return realm.space.within(realm.space.levels[SRC], *numbers)


def sent_where(realm: Realm, node: Node, wanted: Callable[[Sent], bool]) -> Node:
    """Return the packets that a domain sends on, and how it does as wanted."""

    def holds(value: Hashable) -> bool:
        return isinstance(value, Sent) and wanted(value)

    return relabel(realm.space, node, holds)


def as_usual(realm: Realm, at: At) -> Node:
    """Return the first packets that the client sends if all is well."""
    found = ordinary(realm.space, realm.version, at.client.mac)
    return realm.space.both(found, own(realm, at.client))


def others(realm: Realm, domain: str) -> list[str]:
    """Return the interfaces that lead to no client."""
    place = realm.world.places[domain]
    names = [link.name for link in place.net.routing.links if link.up]
    return [name for name in names if name != "lo" and name not in place.clients]

# SPDX-License-Identifier: GPL-2.0-or-later
"""Domains and their links as values: all that a proof is told beside the kernels.

Nothing here is believed to be enforced; it says who is meant by a name.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from proof.bytecode import Place as Chain
from proof.fields import NEW
from proof.machine import Seen
from proof.routes import Address
from proof.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Client:
    """A domain behind a vif.  ``addresses`` are those it may send from."""

    name: str
    addresses: tuple[Address, ...]
    mac: str = "00:16:3e:5e:6c:00"


@dataclass(frozen=True, slots=True)
class Place:
    """A domain that provides network, and what its interfaces are for.

    ``clients`` are by vif; ``uplinks`` lead to the domain at their other end, or
    out of the machine (None).  ``carriers`` are interfaces whose packets leave as
    this domain's own, encapsulated; with an empty set, what clients send must end
    in a daemon; None: this domain forwards in the clear.
    """

    net: Snapshot
    clients: Mapping[str, Client] = field(default_factory=dict)
    uplinks: Mapping[str, str | None] = field(default_factory=dict)
    carriers: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class World:
    """Every domain that provides network, and the snapshots of ``others`` there are.

    ``others`` are domains that provide none.
    """

    places: Mapping[str, Place]
    others: Mapping[str, Snapshot] = field(default_factory=dict)

    def carrier(self, name: str) -> str | None:
        """Return the first domain that carries what it is sent, from one on."""
        met: set[str] = set()
        while name in self.places and name not in met:
            place = self.places[name]
            if place.carriers is not None:
                return name
            met.add(name)
            name = next((up for up in place.uplinks.values() if up), "")
        return None

    def addresses(self, client: str) -> Iterator[Address]:
        """Yield those that a client may send from."""
        for name, vif in self.doors(client):
            yield from self.places[name].clients[vif].addresses

    def doors(self, client: str) -> Iterator[tuple[str, str]]:
        """Yield domain and vif wherever a client is connected."""
        for name, place in self.places.items():
            for vif, behind in place.clients.items():
                if behind.name == client:
                    yield name, vif


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet as it is put on a wire.

    ``first`` and ``second`` are the words that ports are in: those of TCP and
    UDP; for ICMP ``first`` is type and code.  ``state`` is what conntrack says of
    it (a number of field ``ct``); ``fields`` is all else that a proof chose.
    """

    source: Address
    destination: Address
    protocol: int
    first: int = 0
    second: int = 0
    mac: str | None = None
    state: int = NEW
    fields: Mapping[str, int] = field(default_factory=dict)

    @property
    def version(self) -> int:
        """4 or 6."""
        return 4 if isinstance(self.source, IPv4Address) else 6


@dataclass(frozen=True, slots=True)
class Hop:
    """What one domain does with a packet.

    ``verdict`` is "sent", "delivered" (to itself), "dropped", "rejected",
    "unroutable" or "unsure"; ``rule`` is the deciding one, None: a chain's policy
    (``chain``) or no rule at all.  ``packet`` is as it came in, ``out`` the
    interface it leaves by, ``rules`` are all that it matched.
    """

    domain: str
    packet: Packet
    came_by: str
    verdict: str
    rule: Seen | None = None
    chain: Chain | None = None
    out: str | None = None
    rules: tuple[Seen, ...] = ()
    reason: str = ""

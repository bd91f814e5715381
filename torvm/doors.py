# SPDX-License-Identifier: GPL-2.0-or-later
"""Where tor must listen, where it does, and so where flows of clients may end.

A client's flows go to a port only once tor was seen listening there; a port is
given up only once they go elsewhere.  So a move refuses nobody.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address

from rules.facts import Client, Redirect
from rules.model import Address
from torvm.listeners import Kind, Listener, Ports, listeners

SELF = IPv4Address("127.0.0.1")
NAMES = Listener(Kind.DNS, SELF, 53)
"""Where the agent asks for the names that rules mention."""


@dataclass(frozen=True, slots=True)
class Doors:
    """``clients`` are those there are, ``here`` our addresses towards them.

    ``in_force`` is the port that each client's flows go to.
    """

    clients: frozenset[Client] = frozenset()
    here: frozenset[Address] = frozenset()
    socks: bool = False
    ports: Ports = field(default_factory=Ports)
    open: frozenset[Listener] = frozenset()
    in_force: Mapping[Client, int] = field(default_factory=dict)

    def follow(
        self, clients: Iterable[Client], here: frozenset[Address], *, socks: bool
    ) -> "Doors":
        """Take the clients there are now."""
        there = frozenset(clients)
        if (there, here, socks) == (self.clients, self.here, self.socks):
            return self
        ports = self.ports.follow(there)
        made = replace(self, clients=there, here=here, socks=socks, ports=ports)
        return made.opened(self.open)

    def move(self, client: Client) -> "Doors":
        """Give a client another port."""
        return replace(self, ports=self.ports.move(client))

    def opened(self, places: frozenset[Listener]) -> "Doors":
        """Take where tor listens now."""
        found: dict[Client, int] = {}
        for client, port in self.ports.held.items():
            before = self.in_force.get(client, port)
            usable = (p for p in (port, before) if self._at(p, client) <= places)
            found.update((client, p) for p in [next(usable, None)] if p is not None)
        return replace(self, open=places, in_force=found)

    def begin(self, places: frozenset[Listener]) -> "Doors":
        """Take a tor that we did not know: nothing that it has is anyone's.

        It may be one of an agent before this one, so its ports are passed over.
        """
        ports = Ports().beyond(p.port for p in places).follow(self.clients)
        return replace(self, ports=ports, open=places, in_force={})

    @property
    def wanted(self) -> frozenset[Listener]:
        """Where tor must listen, and nowhere else."""
        held = (*self.ports.held.items(), *self.in_force.items())
        found = (self._at(port, client) for client, port in held)
        return frozenset({NAMES}).union(*found)

    @property
    def redirects(self) -> Mapping[int, Redirect]:
        """The port of each client, by the index of its vif."""
        socks = int(self.socks)
        return {
            client.index: Redirect(tcp=port, dns=port, socks=socks * (port + 1))
            for client, port in self.in_force.items()
        }

    @property
    def moving(self) -> frozenset[Address]:
        """The addresses of clients whose port is not the one in force yet."""
        held = self.ports.held.items()
        moving = (client for client, p in held if self.in_force.get(client) != p)
        return frozenset(address for c in moving for address in c.addresses)

    def _at(self, port: int, client: Client) -> frozenset[Listener]:
        places = listeners(port, client, self.here)
        return frozenset(p for p in places if self.socks or p.kind is not Kind.SOCKS)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Which ports of tor belong to which client.

tor never puts streams of two listeners on one circuit (``path-spec``, stream
isolation), so each client that is attached has listeners of its own.  A source
address would not do: a disposable gets the address of one before it, and with
it that one's circuits.  Moving a client's listeners is a new identity of that
client alone; NEWNYM would be one of all.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from ipaddress import IPv6Address

from rules.facts import Client
from rules.model import Address

FIRST = 10_000
# Linux lends the ports above to connections (ip_local_port_range), of which
# tor has many from the very address that clients know.
LAST = 32_767


class Kind(Enum):
    """What a listener speaks; the value is tor's name for it (``tor(1)``)."""

    TRANS = "TransPort"
    DNS = "DNSPort"
    SOCKS = "SocksPort"


@dataclass(frozen=True, slots=True)
class Listener:
    """A place where tor listens; of a DNSPort the port is one of UDP."""

    kind: Kind
    address: Address
    port: int

    def __str__(self) -> str:
        """Return ``ADDRESS:PORT`` as tor writes it."""
        v6 = isinstance(self.address, IPv6Address)
        return f"[{self.address}]:{self.port}" if v6 else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Ports:
    """The port of each client; TCP port + 1 is its SOCKS one.

    A port that was given is not given again before all of them were, and one of
    ``others`` never: somebody's circuits are behind it.
    """

    held: Mapping[Client, int] = field(default_factory=dict)
    following: int = FIRST
    others: frozenset[int] = frozenset()

    def follow(self, clients: Iterable[Client]) -> "Ports":
        """Give ports to clients that are new, take those of clients that left."""
        wanted = frozenset(clients)
        kept = {c: port for c, port in self.held.items() if c in wanted}
        ports = replace(self, held=kept) if kept.keys() != self.held.keys() else self
        for client in sorted(wanted - kept.keys(), key=lambda c: c.index):
            ports = _given(ports, client)
        return ports

    def move(self, client: Client) -> "Ports":
        """Give another port to a client; KeyError if it has none."""
        if client not in self.held:
            raise KeyError(client.vif)
        return _given(self, client)

    def beyond(self, ports: Iterable[int]) -> "Ports":
        """Go on after these, which an agent before this one may have given."""
        ours = frozenset(_first_of(p) for p in ports if FIRST <= p <= LAST)
        following = max((port + 2 for port in ours), default=FIRST)
        return replace(self, following=following, others=ours)


def _first_of(port: int) -> int:
    """Return the first of the two ports of a client."""
    return port - (port - FIRST) % 2


def _given(ports: Ports, client: Client) -> Ports:
    taken = ports.others.union(ports.held.values())
    port = ports.following
    while port in taken or port >= LAST:
        port = port + 2 if port + 2 < LAST else FIRST
    return replace(ports, held={**ports.held, client: port}, following=port + 2)


def listeners(port: int, client: Client, here: Iterable[Address]) -> Iterator[Listener]:
    """Return where tor listens for a client.

    A packet that is redirected goes to the address of the vif it came by, and
    all vifs have the addresses ``here``.
    """
    versions = {type(address) for address in client.addresses}
    for address in here:
        if type(address) in versions:
            yield Listener(Kind.TRANS, address, port)
            yield Listener(Kind.DNS, address, port)
            yield Listener(Kind.SOCKS, address, port + 1)

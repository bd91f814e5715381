# SPDX-License-Identifier: GPL-2.0-or-later
"""What a domain that provides network knows, as values.

Facts are computed from what is true now, never from the last event, so the same
world gives the same ruleset however it came about.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv6Address

from rules.model import Address, AddressRange

UNSPECIFIED = IPv6Address(0)

# Interface groups are a public interface of Qubes (vif-route-qubes, setup-ip).
UPLINK_GROUP = 1
CLIENT_GROUP = 2
"""Of vifs, once they are configured."""


@dataclass(frozen=True, slots=True)
class Client:
    """An AppVM or ProxyVM behind a vif.  ``index`` is the vif's ifindex."""

    vif: str
    index: int
    mac: str
    ip: IPv4Address
    ip6: IPv6Address | None = None

    def __hash__(self) -> int:
        """Hash what tells clients apart: to hash addresses takes ten times as long."""
        return hash((self.vif, self.index))

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The addresses the client may send from."""
        return (self.ip,) if self.ip6 is None else (self.ip, self.ip6)


@dataclass(frozen=True, slots=True)
class Uplink:
    """An interface towards the network.

    ``own`` are the addresses it may send from, ``networks`` the prefixes that
    are on its link, ``gateways`` the next hops of its default routes.
    """

    name: str
    index: int
    own: frozenset[Address] = frozenset()
    networks: frozenset[AddressRange] = frozenset()
    gateways: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True)
class Uid:
    """A daemon of this domain, by the user it runs as."""

    number: int


@dataclass(frozen=True, slots=True)
class Mark:
    """A tunnel of the kernel's own, by the mark on the packets it sends."""

    number: int


Carrier = Uid | Mark


@dataclass(frozen=True, slots=True)
class Carried:
    """What a carrier may send by the uplinks; ``proto`` is the IANA number.

    ``endpoint`` is the one address and port it may talk to; None is anyone of
    the IP versions that the uplinks have.
    """

    carrier: Carrier
    proto: int
    endpoint: tuple[Address, int] | None


@dataclass(frozen=True, slots=True)
class Tunnel:
    """The device that clients leave by in place of the uplinks.

    ``own`` are the addresses that clients are translated to, ``networks`` what
    is behind it, ``mtu`` its bytes of payload.
    """

    name: str
    index: int
    own: frozenset[Address]
    networks: frozenset[AddressRange]
    mtu: int


@dataclass(frozen=True, slots=True)
class Redirect:
    """The ports of a daemon here that the flows of one client end at.

    ``socks`` is where it speaks SOCKS with the client, ``control`` where the agent
    answers in its place.  0: nowhere, as ``tcp`` and ``dns`` may be too.
    """

    tcp: int
    dns: int
    socks: int = 0
    control: int = 0


class Gateway(Enum):
    """Where the flows of clients go on."""

    ROUTER = "by the uplinks"
    TUNNEL = "by a tunnel, which is all that the uplinks carry"
    PROXY = "by a daemon here, whose packets are all that the uplinks carry"


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything a ruleset depends on.

    ``dns`` maps the virtual resolvers to the real ones; ``resolvers`` are those
    this domain itself asks.  ``connected`` are the addresses of all clients that
    dom0 knows, here or not yet.  ``internal`` are prefixes that no client may
    reach through this domain.  ``configured``: the addresses of the uplinks
    come from dom0; otherwise something else in this domain sets them.  ``here``
    are this domain's own addresses towards its clients.

    ``held`` are the indexes of the vifs that open no flow for now.

    But for a router the uplinks carry nothing but what ``carried`` lists, and clients
    have no way but ``tunnel`` or the ``redirects`` of their vif's index.
    """

    clients: tuple[Client, ...] = ()
    uplinks: tuple[Uplink, ...] = ()
    dns: Mapping[Address, Address] = field(default_factory=dict)
    resolvers: frozenset[Address] = frozenset()
    connected: frozenset[Address] = frozenset()
    internal: frozenset[str] = frozenset()
    configured: bool = False
    here: frozenset[Address] = frozenset()
    held: frozenset[int] = frozenset()
    kind: Gateway = Gateway.ROUTER
    carried: frozenset[Carried] = frozenset()
    tunnel: Tunnel | None = None
    redirects: Mapping[int, Redirect] = field(default_factory=dict)

    @property
    def ways(self) -> tuple[Uplink, ...]:
        """What packets of clients may leave by."""
        if self.kind is Gateway.ROUTER:
            return self.uplinks
        if self.tunnel is None:
            return ()
        tunnel = self.tunnel
        return (Uplink(tunnel.name, tunnel.index, tunnel.own, tunnel.networks),)

# SPDX-License-Identifier: GPL-2.0-or-later
"""What the address plan says of one client, as its own questions are answered."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Interface

from rules.facts import Client
from rules.model import Address
from rules.virtual_dns import VIRTUAL4, VIRTUAL6

LIFETIME = 3600  # seconds until a client must have asked again
ROUTER = IPv6Interface("fe80::fcff:ffff:feff:ffff/64")
"""The address of every vif on its link: its MAC's (RFC 4291, appendix A)."""
ROUTER_MAC = bytes.fromhex("feffffffffff")


@dataclass(frozen=True, slots=True)
class Place:
    """Who is behind one vif, and what is next to it.

    ``mac`` are 6 bytes; ``gateway`` is None if dom0 has named none.
    """

    mac: bytes
    ip: IPv4Address
    ip6: IPv6Address | None
    gateway: IPv4Address | None
    resolvers: tuple[IPv4Address, ...] = VIRTUAL4
    resolvers6: tuple[IPv6Address, ...] = VIRTUAL6


def place(client: Client, gateways: Iterable[Address]) -> Place:
    """Return the place of a client; ``gateways`` are those towards clients."""
    of4 = (each for each in gateways if isinstance(each, IPv4Address))
    mac = bytes.fromhex(client.mac.replace(":", ""))
    return Place(mac, client.ip, client.ip6, next(of4, None))

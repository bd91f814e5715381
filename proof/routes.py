# SPDX-License-Identifier: GPL-2.0-or-later
"""What decides where a packet goes: links, addresses, routes, routing rules."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address
Prefix = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Link:
    """An interface.  ``kind`` is "" for real hardware; ``xdp``: a program is on it.

    ``mac`` is its own address, of any length.
    """

    index: int
    name: str
    group: int
    hardware: int
    up: bool
    kind: str = ""
    controller: int | None = None
    xdp: bool = False
    mac: bytes = b""


@dataclass(frozen=True, slots=True)
class LocalAddress:
    """An address of this host; ``length`` is that of its prefix."""

    index: int
    address: Address
    length: int


@dataclass(frozen=True, slots=True)
class Route:
    """A route; ``kind`` is RTN_…, ``interfaces`` those of all its next hops.

    ``sometimes``: it is passed over for some packets, or while a link is without a
    carrier.
    """

    table: int
    prefix: Prefix
    kind: int
    interfaces: frozenset[int]
    gateway: Address | None = None
    source: Prefix | None = None
    metric: int = 0
    encapsulated: bool = False
    sometimes: bool = False


@dataclass(frozen=True, slots=True)
class RoutingRule:
    """A routing rule; ``action`` is one of FR_ACT_….

    ``selectors`` are attributes (FRA_…) that narrow it and are not read here.
    """

    version: int
    priority: int
    action: int
    table: int
    inverted: bool
    iif: str | None = None
    oif: str | None = None
    source: Prefix | None = None
    destination: Prefix | None = None
    mark: int = 0
    mask: int = 0
    target: int | None = None
    selectors: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Routing:
    """All of them, in the order of the kernel."""

    links: tuple[Link, ...]
    addresses: tuple[LocalAddress, ...]
    routes: tuple[Route, ...]
    rules: tuple[RoutingRule, ...]

# SPDX-License-Identifier: GPL-2.0-or-later
"""What an agent needs of the kernel, in the agent's words.

Each port has one adapter that talks to the kernel and one fake in the tests.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from rules.decide import Packet
from rules.facts import Client, Tunnel, Uplink
from rules.model import Address
from rules.objects import Key, Object
from rules.routing import Routing
from rules.transaction import Edit


class FirewallError(RuntimeError):
    """nftables refused a transaction; the kernel is as it was before."""


class NetlinkError(OSError):
    """The kernel refused a change of links, addresses, routes or flows."""


class Firewall(Protocol):
    """nftables, one transaction at a time."""

    def load(self, script: str) -> None:
        """Apply nft text as one transaction, or raise `FirewallError`."""

    def put(self, edits: Sequence[Edit]) -> None:
        """Change elements of plain sets and maps as one transaction.

        `FirewallError` if that is refused.
        """

    def names(self, table: str) -> dict[Key, Object]:
        """Return the regular chains, sets and maps of a table, as if empty."""

    def touched(self) -> bool:
        """Whether somebody else changed a ruleset here since this was asked."""

    def release(self) -> None:
        """Give memory back that large transactions took."""


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface; ``mac`` is lower case, ``group`` its interface group.

    ``falls`` counts how often it was seen to go down, however shortly.
    """

    index: int
    name: str
    mac: str
    group: int
    up: bool
    falls: int = 0


class Links(Protocol):
    """The interfaces of this domain, their addresses and the routing."""

    def fileno(self) -> int:
        """Return the descriptor that is readable when something changed."""

    def handle(self) -> bool:
        """Take what changed; return whether anything did."""

    def by_name(self, name: str) -> Link | None:
        """Return the interface of that name now."""

    def addresses(self, index: int) -> frozenset[tuple[Address, int]]:
        """Return the addresses of an interface with their prefix lengths."""

    def gateways(self, index: int) -> tuple[Address, ...]:
        """Return the next hops of the default routes of table main."""

    def route(self, routing: Routing) -> None:
        """Make the routing rules and our two tables exactly these."""

    def attach(self, client: Client, gateways: Iterable[Address]) -> None:
        """Configure a vif (it is down until now) and set it up, group 2.

        ``gateways`` are the addresses that this domain has towards clients.
        """

    def connect(self, uplink: Uplink, *, pinned: bool) -> None:
        """Configure an uplink by its facts and set it up, group 1.

        ``pinned``: its next hop is the vif of another domain, whose MAC address
        is known.
        """

    def tunnel(self, tunnel: Tunnel, resolvers: Collection[Address]) -> None:
        """Configure the device that clients leave by, and set it up.

        This domain itself reaches ``resolvers`` through it, and nothing else.
        """

    def rest(self, tunnel: Tunnel) -> None:
        """Set a device down that is no way out any more, if it is still there.

        What its server said goes with it: an address or a resolver may be that of
        the server that is tried next.
        """

    def adopt(self, uplink: Uplink) -> None:
        """Harden an uplink that somebody else configures, and put it in group 1."""


@dataclass(frozen=True, slots=True)
class LiveFlow:
    """A connection that conntrack knows, by its original direction.

    ``proto`` is the IANA number; ``port`` the destination port of TCP, UDP and
    their like; ``icmp_type`` that of ICMP and ICMPv6.  ``answered_by`` is the
    source of its replies, which differs from ``dst`` where it is translated.
    ``handle`` is the adapter's own.
    """

    src: Address
    dst: Address
    proto: int
    port: int | None
    icmp_type: int | None
    answered_by: Address
    handle: bytes


class Conntrack(Protocol):
    """The live connections."""

    def flows(self, *sources: Address) -> Iterator[LiveFlow]:
        """Return the connections that any of ``sources`` opened.

        One call for many costs about as much as one for a few.
        """

    def delete(self, *flows: LiveFlow) -> None:
        """Cut connections; nothing happens if one is gone already."""

    def end(self, source: Address, packets: Iterable[Packet]) -> bool:
        """Cut the connections that ``source`` opened by TCP or UDP packets like these.

        Return whether the kernel can find them; if not, nothing is cut.  Where there
        is no connection, no packet is asked for.
        """

    def flush(self, *addresses: Address) -> None:
        """Cut every connection that any of ``addresses`` opened or answers."""

    def full(self) -> tuple[int, int]:
        """Return how many connections there are, and how many there may be."""

    def count(self, *sources: Address) -> Mapping[Address, Mapping[bytes, int]]:
        """Return how many connections each of ``sources`` opened to each address."""

# SPDX-License-Identifier: GPL-2.0-or-later
"""The interfaces of this network namespace: what they are, and putting them to use.

What is known is a dump and the kernel's events since; after an overrun (ENOBUFS)
it is a new dump.
"""

import logging
import struct
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from errno import ENOBUFS, ENODEV
from ipaddress import ip_address, ip_interface
from socket import AF_UNSPEC

from agent import sysctl, ways
from agent.hardening import Role
from agent.netlink import ROUTE, Message, Netlink, Request, attribute, attributes
from agent.plan import ROUTER
from agent.ports import Link, NetlinkError
from agent.routes import Routes, table_of
from agent.rtnetlink import (
    DEL_LINK,
    GET_ADDRESS,
    GET_LINK,
    LINK,
    NEW_LINK,
    NUMBERS,
    UP,
    add_address,
    replace_neighbour,
    replace_route,
    set_link,
)
from rules.facts import CLIENT_GROUP, UPLINK_GROUP, Client, Tunnel, Uplink
from rules.model import Address, Family, family
from rules.routing import ANY, MAIN, Route, Routing

log = logging.getLogger(__name__)

# linux/rtnetlink.h: RTMGRP_… for links, and for addresses, routes and rules of
# both versions
_GROUPS = 0x1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 1 << 18

_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix, …, index
_U32 = struct.Struct("=I")
_MAC, _NAME, _GROUP, _EXTRA = 1, 3, 27, 29  # IFLA_…
_ADDRESS_OF_PEER, _LOCAL = 1, 2  # IFA_ADDRESS, IFA_LOCAL
_NO_STATISTICS = 8  # RTEXT_FILTER_SKIP_STATS


class LinkTable:
    """The port `agent.ports.Links`, and `close`."""

    def __init__(self) -> None:
        # Listen before looking, so nothing falls between the two.
        self._events = Netlink(ROUTE, _GROUPS)
        self._kernel = Netlink(ROUTE)
        self._links: dict[int, Link] = {}
        self._names: dict[str, int] = {}
        self._routes = Routes(self._kernel)
        self._wanted: Mapping[int, Sequence[Route]] = {}  # by link
        self._read()

    def fileno(self) -> int:
        """Return the descriptor that is readable when something changed."""
        return self._events.fileno()

    def close(self) -> None:
        """Close the sockets."""
        self._events.close()
        self._routes.close()
        self._kernel.close()

    def handle(self) -> bool:
        """Take what changed; return whether anything did."""
        changed = False
        before: dict[int, Link | None] = {}
        try:
            for message in self._events.events():
                changed |= self._take(message, before)
            # What a link was in between, on its way to what we made it, is no news.
            changed |= any(self._links.get(i) != link for i, link in before.items())
        except OSError as error:
            if error.errno != ENOBUFS:
                raise
            log.info("the kernel's events overran, reading everything")
            self._events.drop_events()
            self._read()
            changed = True
        self._routes.refresh()
        return changed

    def by_name(self, name: str) -> Link | None:
        """Return the interface of that name now."""
        return self._links.get(self._names.get(name, 0))

    def addresses(self, index: int) -> frozenset[tuple[Address, int]]:
        """Return the addresses of an interface with their prefix lengths."""
        asked = _ADDRESS.pack(AF_UNSPEC, 0, 0, 0, index)
        gone = frozenset({ENODEV})
        request = Request("list addresses", GET_ADDRESS, asked, fine=gone)
        return frozenset(map(_address, self._kernel.dump(request)))

    def gateways(self, index: int) -> tuple[Address, ...]:
        """Return the next hops of the default routes of table main, best first."""
        routes = [
            route
            for number in NUMBERS.values()
            for route in table_of(self._kernel, number, MAIN, index)
            if route.prefix in ANY.values()
        ]
        routes.sort(key=lambda route: route.metric)
        return tuple(route.gateway for route in routes if route.gateway)

    def route(self, routing: Routing) -> None:
        """Make the routing rules and our two tables exactly these.

        Routes by a link that is down follow when it is up.
        """
        self._wanted = routing.routes
        usable = {link.index for link in self._links.values() if link.up}
        self._routes.make(routing.rules, self._wanted, usable)

    def attach(self, client: Client, gateways: Iterable[Address]) -> None:
        """Configure a vif (it is down until now) and set it up, group 2.

        ``gateways`` are the addresses that this domain has towards clients.
        Everything goes in one system call, besides the kernel parameters.
        """
        link = self._present(client.index)
        families = {family(address) for address in client.addresses}
        self._harden(link, Role.VIF, families)
        self._kernel.do(
            set_link(link.index, group=CLIENT_GROUP),
            *(replace_neighbour(link.index, a, client.mac) for a in client.addresses),
            *(
                add_address(link.index, ip_interface(gateway))
                for gateway in (*gateways, ROUTER)
                if family(gateway) in families
            ),
            set_link(link.index, up=True),
            *map(replace_route, self._wanted.get(link.index, ())),
        )
        self._put(replace(link, group=CLIENT_GROUP, up=True))

    def connect(self, uplink: Uplink, *, pinned: bool) -> None:
        """Configure an uplink by its facts and set it up, group 1.

        ``pinned``: its next hop is the vif of another domain, whose MAC address
        is known.
        """
        link = self._present(uplink.index)
        self._harden(link, Role.UPLINK, {family(address) for address in uplink.own})
        present = self.addresses(uplink.index)
        self._kernel.do(*ways.of_uplink(uplink, present, pinned=pinned))
        self._put(replace(link, group=UPLINK_GROUP, up=True))

    def tunnel(self, tunnel: Tunnel, resolvers: Collection[Address]) -> None:
        """Configure the device that clients leave by, and set it up.

        This domain itself reaches ``resolvers`` through it, and nothing else.
        """
        link = self._present(tunnel.index)
        self._harden(link, Role.UPLINK, {family(address) for address in tunnel.own})
        present = self.addresses(tunnel.index)
        self._kernel.do(*ways.of_tunnel(tunnel, present, resolvers))
        self._put(replace(link, up=True))

    def rest(self, tunnel: Tunnel) -> None:
        """Set a device down, without an address or a route; nothing if it is gone."""
        if (link := self._links.get(tunnel.index)) is not None:
            self._kernel.do(*ways.of_rest(link.index, self.addresses(link.index)))
            self._put(replace(link, up=False))

    def adopt(self, uplink: Uplink) -> None:
        """Harden an uplink that somebody else configures, and put it in group 1."""
        link = self._present(uplink.index)
        sysctl.harden(Role.ADOPTED, link.name)
        self._kernel.do(set_link(link.index, group=UPLINK_GROUP))
        self._put(replace(link, group=UPLINK_GROUP))

    def _harden(self, link: Link, role: Role, families: set[Family]) -> None:
        version = Role.IPV6 if Family.IPV6 in families else Role.NO_IPV6
        sysctl.harden(version, link.name)
        sysctl.harden(role, link.name)

    def _present(self, index: int) -> Link:
        if index not in self._links:
            raise NetlinkError(ENODEV, f"link {index} is gone")
        return self._links[index]

    def _read(self) -> None:
        asked = LINK.pack(AF_UNSPEC, 0, 0, 0, 0)
        asked += attribute(_EXTRA, _U32.pack(_NO_STATISTICS))
        # Nothing is forgotten before there is something to put in its place.
        found = self._kernel.dump(Request("list links", GET_LINK, asked))
        self._links.clear()
        self._names.clear()
        for message in found:
            self._take(message, {})

    def _take(self, message: Message, was: dict[int, Link | None]) -> bool:
        """Follow an event; note in ``was`` what a link was before the first.

        Return whether it was somebody else's and not about a link.
        """
        if message.kind not in {NEW_LINK, DEL_LINK}:
            return message.port != self._kernel.port
        number, _, index, flags, _ = LINK.unpack_from(message.body)
        if number != AF_UNSPEC:  # the link as a port of a bridge
            return False
        before = self._links.pop(index, None)
        was.setdefault(index, before)
        if before is not None:
            self._names.pop(before.name, None)
        if message.kind == DEL_LINK:
            return False
        found = attributes(message.body, LINK.size)
        falls = 0 if before is None else before.falls
        fell = before is not None and before.up and not flags & UP
        after = Link(
            index=index,
            name=found[_NAME].rstrip(b"\0").decode(),
            mac=found.get(_MAC, b"").hex(":"),
            group=_U32.unpack(found[_GROUP])[0],
            up=bool(flags & UP),
            falls=falls + fell,
        )
        self._put(after)
        return False

    def _put(self, link: Link) -> None:
        self._links[link.index] = link
        self._names[link.name] = link.index


def _address(message: Message) -> tuple[Address, int]:
    _, bits, _, _, _ = _ADDRESS.unpack_from(message.body)
    found = attributes(message.body, _ADDRESS.size)
    # Of a point-to-point link the other is the peer's.
    return ip_address(found.get(_LOCAL) or found[_ADDRESS_OF_PEER]), bits

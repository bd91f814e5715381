# SPDX-License-Identifier: GPL-2.0-or-later
"""Answer the clients that ask for an address, each with its own and only by its vif.

A client needs nothing of Ravelin in it: whatever asks by DHCP, DHCPv6 or for
a router is told what dom0 has planned for the vif that the question came by.
What it says of itself decides nothing.

The three sockets take rights that an agent gives up once it has them.  The
kernel sends answers to the MAC address that is fixed for the vif; how many
questions it lets in is in `rules.skeleton`.
"""

import logging
import select
import socket
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from ipaddress import IPv4Address

from agent import dhcp, dhcp6
from agent.advertisement import PERIOD, advertisement
from agent.plan import ROUTER, Place, place
from agent.rights import Capability, give_up
from agent.timer import Timer
from rules.facts import Client, Facts
from rules.model import Address

log = logging.getLogger(__name__)

MAX_MESSAGE = 1500
BATCH = 64  # messages taken at once
SERVER, CLIENT = 67, 68
SERVER6, CLIENT6 = 547, 546
ALL_SERVERS, ALL_NODES = "ff02::1:2", "ff02::1"

_IP_PKTINFO = 8  # ip(7)
_PKTINFO = struct.Struct("=I4s4s")  # struct in_pktinfo: ifindex, own address, target
_PKTINFO6 = struct.Struct("=16sI")  # struct in6_pktinfo: address, ifindex
_GROUP = struct.Struct("=16sI")  # struct ipv6_mreq: address, ifindex
_FILTER, _SOLICITATION = 1, 133  # ICMP6_FILTER (RFC 3542, 3.2)
_ROOM = 64  # bytes of what comes beside a message

Take = Callable[[bytes, int, tuple[str, int]], None]


class Leases:
    """The answers of one agent; readable when somebody asks."""

    def __init__(self) -> None:
        self._ready = select.epoll()
        self._timer = Timer()
        self._clients: Mapping[int, Client] = {}  # by the index of the vif
        self._served: tuple[tuple[Client, ...], tuple[Address, ...]] = ((), ())
        self._joined: set[int] = set()
        self._sockets: dict[int, tuple[socket.socket, Take]] = {}
        self._v4 = self._open("DHCP", _for_dhcp, self._dhcp)
        self._v6 = self._open("DHCPv6", _for_dhcp6, self._dhcp6)
        self._icmp = self._open("router advertisements", _for_icmp, self._solicited)
        self._ready.register(self._timer, select.EPOLLIN)
        self._timer.arm(time.monotonic() + PERIOD)
        give_up(*Capability)

    def fileno(self) -> int:
        """Return what is readable when there is something to answer."""
        return self._ready.fileno()

    def handle(self) -> bool:
        """Answer, and return False: the facts stay as they are."""
        for descriptor, _ in self._ready.poll(0):
            if descriptor == self._timer.fileno():
                self._timer.arm(time.monotonic() + PERIOD)
                for index in self._clients:
                    self._advertise(index)
            else:
                self._take(*self._sockets[descriptor])
        return False

    def serve(self, facts: Facts, gateways: tuple[Address, ...]) -> None:
        """Answer these clients from now on; ``gateways`` are towards them."""
        served = (facts.clients, gateways)
        if served == self._served:
            return
        self._served = served
        self._clients = {each.index: each for each in facts.clients}
        wanted = {each.index for each in facts.clients if each.ip6 is not None}
        for index in self._joined - wanted:
            self._group(socket.IPV6_LEAVE_GROUP, index)
        for index in wanted - self._joined:
            self._group(socket.IPV6_JOIN_GROUP, index)
        self._joined = wanted

    def close(self) -> None:
        """Give everything back."""
        for each, _ in self._sockets.values():
            each.close()
        self._timer.close()
        self._ready.close()

    def _open(
        self, what: str, make: Callable[[], socket.socket], take: Take
    ) -> socket.socket | None:
        """Return a socket; without it all but this goes on."""
        try:
            made = make()
        except OSError as error:
            log.warning("no %s for clients: %s", what, error)
            return None
        made.setblocking(False)  # noqa: FBT003
        self._sockets[made.fileno()] = made, take
        self._ready.register(made, select.EPOLLIN)
        return made

    def _take(self, source: socket.socket, take: Take) -> None:
        for _ in range(BATCH):
            try:
                untrusted, beside, _, sender = source.recvmsg(MAX_MESSAGE, _ROOM)
            except OSError:  # nothing more, or what the network said of an answer
                return
            for _, _, info in beside:
                take(untrusted, _index(info), sender)

    def _place(self, index: int) -> Place | None:
        client = self._clients.get(index)
        return None if client is None else place(client, self._served[1])

    def _dhcp(self, untrusted: bytes, index: int, _: tuple[str, int]) -> None:
        here = self._place(index)
        said = None if here is None else dhcp.answer(untrusted, here)
        if here is None or here.gateway is None or said is None:
            return
        to = said.to or IPv4Address("255.255.255.255")
        info = _PKTINFO.pack(index, here.gateway.packed, bytes(4))
        beside = (socket.IPPROTO_IP, _IP_PKTINFO, info)
        _send(self._v4, said.message, beside, (str(to), CLIENT))

    def _dhcp6(self, untrusted: bytes, index: int, sender: tuple[str, int]) -> None:
        here = self._place(index)
        said = None if here is None else dhcp6.answer(untrusted, here)
        if said is not None:
            to = (sender[0].partition("%")[0], CLIENT6, 0, index)
            _send(self._v6, said, _from_router(index), to)

    def _solicited(self, _: bytes, index: int, __: tuple[str, int]) -> None:
        self._advertise(index)

    def _advertise(self, index: int) -> None:
        here = self._place(index)
        if here is not None and here.ip6 is not None:
            to = (ALL_NODES, 0, 0, index)
            _send(self._icmp, advertisement(here), _from_router(index), to)

    def _group(self, option: int, index: int) -> None:
        if self._v6 is None:
            return
        group = _GROUP.pack(socket.inet_pton(socket.AF_INET6, ALL_SERVERS), index)
        # The vif may be gone, and its membership with it.
        with suppress(OSError):
            self._v6.setsockopt(socket.IPPROTO_IPV6, option, group)


Beside = tuple[int, int, bytes]


def _index(info: bytes) -> int:
    """Return the ifindex of an in_pktinfo or an in6_pktinfo."""
    if len(info) == _PKTINFO6.size:
        return int(_PKTINFO6.unpack(info)[1])
    return int(_PKTINFO.unpack(info)[0]) if len(info) == _PKTINFO.size else 0


def _from_router(index: int) -> Beside:
    info = _PKTINFO6.pack(ROUTER.ip.packed, index)
    return socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, info


def _send(
    by: socket.socket | None, message: bytes, beside: Beside, to: tuple[object, ...]
) -> None:
    # Who was not answered asks again.
    with suppress(OSError):
        if by is not None:
            by.sendmsg([message], [beside], 0, to)


def _for_dhcp() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    return _bound(made, ("0.0.0.0", SERVER))  # noqa: S104 - by vif, see the rules


def _for_dhcp6() -> socket.socket:
    made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    return _bound(made, ("::", SERVER6))


def _for_icmp() -> socket.socket:
    made = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    words = [0xFFFFFFFF] * 8  # a bit that is set keeps a type out
    words[_SOLICITATION // 32] &= ~(1 << _SOLICITATION % 32)
    made.setsockopt(socket.IPPROTO_ICMPV6, _FILTER, struct.pack("=8I", *words))
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
    # RFC 4861, 6.1.2: hosts believe no other.
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
    return made


def _bound(made: socket.socket, at: tuple[str, int]) -> socket.socket:
    try:
        made.bind(at)
    except OSError:
        made.close()
        raise
    return made

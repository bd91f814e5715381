# SPDX-License-Identifier: GPL-2.0-or-later
"""A capture that loses nothing, or says so: the judge of every leak test.

``with Sniffer(namespace, "eth0") as seen: …`` (or `EVERY`) records every frame of every
ethertype, both ways, as the packet socket sees it (packet(7)); afterwards
``seen.packets`` is what was on the wire.
"""

import errno
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import islice
from pathlib import Path
from typing import Protocol, Self

from controller import namespaces
from tests.lab.ends import MARKER

ETH_ALL, ETH_IP, ETH_ARP, ETH_VLAN, ETH_IP6 = 0x0003, 0x0800, 0x0806, 0x8100, 0x86DD
ICMP, TCP, UDP, ICMP6 = 1, 6, 17, 58
MLD_REPORT = 143  # RFC 3810
EXTENSIONS = (0, 43, 60, 135, 139, 140)  # RFC 8200 and IANA, all with a length byte
FRAGMENT, AUTHENTICATION = 44, 51
SOL_PACKET, PACKET_STATISTICS, PACKET_AUXDATA = 263, 6, 8  # linux/if_packet.h
VLAN_VALID = 0x10
SO_RCVBUFFORCE = 33
BUFFER = 256 << 20  # bytes
QUIET = 0.15  # seconds without a frame after which a capture may end
PATIENCE = 30.0  # seconds; only a failing test waits that long
EVERY = "*"  # instead of a name: all interfaces, also those that come later
DRAIN = 0.5  # seconds after which it ends even under a flood

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Packet:
    """One frame; what it does not have is None.

    ``protocol`` is the one after all IPv6 extension headers.  Of ARP, ``source``
    and ``destination`` are the sender and target addresses.
    """

    interface: str
    outgoing: bool
    raw: bytes
    mac_source: str
    mac_destination: str
    ethertype: int
    vlan: int | None = None
    source: Address | None = None
    destination: Address | None = None
    protocol: int | None = None
    source_port: int | None = None
    port: int | None = None
    icmp_type: int | None = None

    @property
    def marked(self) -> bool:
        """Whether a probe of ours is anywhere in the frame."""
        return MARKER in self.raw

    @property
    def neighbourly(self) -> bool:
        """ARP or the ND, RS, RA and MLD by which an IPv6 link keeps itself."""
        ours = self.protocol == ICMP6 and self.icmp_type in range(130, 138)
        return self.ethertype == ETH_ARP or ours or self.joining

    @property
    def joining(self) -> bool:
        """A report of MLD: a link that came up sends two within a second."""
        return self.protocol == ICMP6 and self.icmp_type == MLD_REPORT


_address = lru_cache(maxsize=4096)(ip_address)


def parse(raw: bytes, interface: str = "", *, outgoing: bool = False) -> Packet:
    """Read an Ethernet frame as far as it can be read; never fails on 14 bytes."""
    vlan, ethertype, body = None, int.from_bytes(raw[12:14]), raw[14:]
    while ethertype == ETH_VLAN and len(body) >= 4:
        vlan, ethertype, body = (
            int.from_bytes(body[:2]) & 0xFFF,
            int.from_bytes(body[2:4]),
            body[4:],
        )
    source: Address | None = None
    destination: Address | None = None
    protocol: int | None = None
    ports: tuple[int | None, int | None, int | None] = (None, None, None)
    if ethertype == ETH_ARP and len(body) >= 28:
        source, destination = _address(body[14:18]), _address(body[24:28])
    elif ethertype == ETH_IP and len(body) >= 20:
        source, destination, protocol = (
            _address(body[12:16]),
            _address(body[16:20]),
            body[9],
        )
        if not int.from_bytes(body[6:8]) & 0x1FFF:
            ports = _ports(protocol, body[(body[0] & 15) * 4 :])
    elif ethertype == ETH_IP6 and len(body) >= 40:
        source, destination = _address(body[8:24]), _address(body[24:40])
        protocol, rest = _upper(body[6], body[40:])
        ports = _ports(protocol, rest)
    return Packet(
        interface,
        outgoing,
        raw,
        raw[6:12].hex(":"),
        raw[:6].hex(":"),
        ethertype,
        vlan,
        source,
        destination,
        protocol,
        *ports,
    )


def _ports(protocol: int, body: bytes) -> tuple[int | None, int | None, int | None]:
    if protocol in (TCP, UDP) and len(body) >= 4:
        return int.from_bytes(body[:2]), int.from_bytes(body[2:4]), None
    if protocol in (ICMP, ICMP6) and body:
        return None, None, body[0]
    return None, None, None


def _upper(protocol: int, body: bytes) -> tuple[int, bytes]:
    while len(body) >= 8:
        if protocol in EXTENSIONS:
            length = 8 + body[1] * 8
        elif protocol == AUTHENTICATION:
            length = 8 + body[1] * 4
        elif protocol == FRAGMENT:
            if int.from_bytes(body[2:4]) & 0xFFF8:
                return body[0], b""
            length = 8
        else:
            break
        protocol, body = body[0], body[length:]
    return protocol, body


class Capture(AbstractContextManager["Capture"], Protocol):
    """What captures from ``with`` to its end."""

    def finish(self) -> None:
        """Begin to end."""


class LostError(AssertionError):
    """The capture is not complete, so nothing can be concluded from it."""


class Sniffer:
    """Captures on some interfaces of a namespace from ``with`` to its end.

    Under traffic that does not end it goes on for ``drain`` seconds, and has all that
    was on the wire until then: what the kernel counted is read.
    """

    def __init__(self, net: Path, *interfaces: str, drain: float = DRAIN) -> None:
        self.packets: list[Packet] = []
        self._drain = drain
        self._arrived = threading.Condition()
        self._sockets: list[socket.socket] = []
        self._dropped = 0
        with namespaces.inside(net):
            for interface in interfaces:
                self._sockets.append(_listening(interface))
        self._taken = dict.fromkeys(self._sockets, 0)
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def finish(self) -> None:
        """Begin to end, for who has others to end at the same time."""
        self._stop.close()

    def __exit__(self, *_: object) -> None:
        self.finish()
        self._thread.join()
        for each in (*self._sockets, self._stopped):
            each.close()
        if lost := self._dropped:
            raise LostError(f"the kernel dropped {lost} frames of the capture")

    def wait(
        self, matches: Callable[[Packet], bool], within: float = PATIENCE
    ) -> Packet:
        """Return the first packet that matches; LostError if none comes in time."""
        deadline, seen = time.monotonic() + within, 0
        with self._arrived:
            while True:
                for packet in self.packets[seen:]:
                    if matches(packet):
                        return packet
                seen = len(self.packets)
                if not self._arrived.wait(deadline - time.monotonic()):
                    raise LostError(f"no such packet among {seen} within {within} s")

    def foreign(self, allowed: Callable[[Packet], bool]) -> list[Packet]:
        """Return the packets that are not allowed."""
        return [packet for packet in self.packets if not allowed(packet)]

    @property
    def marked(self) -> list[Packet]:
        """The packets with a probe of ours inside."""
        return [packet for packet in self.packets if packet.marked]

    def _read(self) -> None:
        watched = [*self._sockets, self._stopped]
        while self._stopped not in (ready := select.select(watched, [], [])[0]):
            self._keep(packet for each in ready for packet in self._take(each))
        until = time.monotonic() + self._drain
        while ready := select.select(self._sockets, [], [], QUIET)[0]:
            if time.monotonic() > until:
                break
            self._keep(packet for each in ready for packet in self._take(each))
        for each in self._sockets:
            captured, dropped = _counted(each)
            self._dropped += dropped
            left = captured - dropped - self._taken[each]
            self._keep(islice(self._take(each), left))

    def _keep(self, packets: Iterable[Packet]) -> None:
        taken = list(packets)
        with self._arrived:
            self.packets.extend(taken)
            self._arrived.notify_all()

    def _take(self, ready: socket.socket) -> Iterator[Packet]:
        with suppress(BlockingIOError):
            while True:
                try:
                    raw, control, _, address = ready.recvmsg(65535, 64)
                except OSError as error:
                    if error.errno != errno.ENETDOWN:
                        raise
                else:
                    self._taken[ready] += 1
                    way = address[2] == socket.PACKET_OUTGOING
                    yield parse(_tagged(raw, control), address[0], outgoing=way)


@contextmanager
def together(*captures: Capture) -> Iterator[None]:
    """Have some captures that end at the same time, not one after the other."""
    with ExitStack() as stack:
        for each in captures:
            stack.enter_context(each)
        try:
            yield
        finally:
            for each in captures:
                each.finish()


def _listening(interface: str) -> socket.socket:
    # From the first moment a socket of any protocol hears every interface.
    every = socket.htons(ETH_ALL) if interface == EVERY else 0
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, every)
    made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    made.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    made.settimeout(0)
    if interface != EVERY:
        made.bind((interface, ETH_ALL))
    return made


def _tagged(raw: bytes, control: Sequence[tuple[int, int, bytes]]) -> bytes:
    """Put back the VLAN tag that the kernel keeps beside the frame."""
    for level, kind, data in control:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            status, _, _, _, _, tag, _ = struct.unpack("IIIHHHH", data)
            if status & VLAN_VALID:
                return raw[:12] + struct.pack("!HH", ETH_VLAN, tag) + raw[12:]
    return raw


def _counted(each: socket.socket) -> tuple[int, int]:
    """Return how many frames were captured, and how many of them were dropped."""
    captured, dropped = struct.unpack(
        "II", each.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
    )
    return captured, dropped

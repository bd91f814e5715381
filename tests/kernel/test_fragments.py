# SPDX-License-Identifier: GPL-2.0-or-later
"""Nobody's fragment becomes part of what somebody else sends, or is answered.

conntrack puts fragments together by their addresses, whatever interface they came
in by.  What a stranger plants has the sum of what it takes the place of, so that the
checksum of UDP does not tell.
"""

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address

import pytest

from agent import sysctl
from agent.hardening import Role
from rules.guard import GUARD_TEXT
from rules.objects import GUARD
from tests.kernel.cabled import CLIENTS, MACS, SERVER, VIF_MAC, cabled, known, nft

pytestmark = pytest.mark.kernel

PATIENCE = 20.0  # seconds; only a failing test waits that long
PORT, UDP, FRAGMENT = 9, 17, 44
UP_MAC, ROUTER = "02:00:00:00:00:01", "02:00:00:00:00:02"
HERE = {4: "10.137.255.254", 6: "fd09:24ef:4179::a89:fffe"}
OWN = {4: "192.0.2.1", 6: "2001:db8::1"}
FIRST, GENUINE, PLANTED = b"x" * 1200, b"12345678", b"56781234"
LAST = b"the last"  # as long as these
LONE, MANY = 1440, 2000  # bytes before a fragment that is alone; how many of them
UNGUARDED = f"flush chain {GUARD} prerouting"


@dataclass(frozen=True)
class Datagram:
    """What one end sends in two fragments, by the wire of a device."""

    device: str
    sender: str
    target: str

    def fragment(self, body: bytes, offset: int, number: int) -> bytes:
        """Return a frame with a part of it; the first one is not the last."""
        there = UP_MAC if self.device == "eth0" else VIF_MAC
        mac = bytes.fromhex((there + MACS.get(self.device, ROUTER)).replace(":", ""))
        source, target = ip_address(self.sender), ip_address(self.target)
        more = offset == 0
        if isinstance(source, IPv4Address):
            head = _head4(source.packed + target.packed, len(body), number)
            head = _with_place(head, more << 13 | offset >> 3)
            return mac + b"\x08\0" + head + body
        place = struct.pack("!BBHI", UDP, 0, offset | more, number)
        length = len(place) + len(body)
        head = struct.pack("!IHBB", 6 << 28, length, FRAGMENT, 64)
        return mac + b"\x86\xdd" + head + source.packed + target.packed + place + body

    def begin(self) -> bytes:
        """Return the UDP header and what goes into the first fragment."""
        whole = FIRST + GENUINE
        length = 8 + len(whole)
        source, target = (ip_address(a).packed for a in (self.sender, self.target))
        pseudo = source + target + struct.pack("!II", length, UDP)
        head = struct.pack("!HHHH", PORT, PORT, length, 0)
        return head[:6] + struct.pack("!H", _sum(pseudo + head + whole)) + FIRST


def _head4(ends: bytes, length: int, number: int) -> bytes:
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, number, 0, 64, UDP, 0) + ends


def _with_place(head: bytes, place: int) -> bytes:
    head = head[:6] + struct.pack("!H", place) + head[8:]
    return head[:10] + struct.pack("!H", _sum(head)) + head[12:]


def _sum(data: bytes) -> int:
    """Return the checksum of RFC 1071."""
    return sum(struct.unpack(f"!{len(data) // 2}H", data)) % 0xFFFF ^ 0xFFFF


@pytest.fixture(autouse=True)
def gateway() -> Iterator[None]:
    """A guard alone: whatever it lets in is heard by a socket."""
    addresses = (
        f"address add {address} dev {where} {'nodad' * (version == 6)}"
        for where, both in (("lo", HERE), ("eth0", OWN))
        for version, address in both.items()
    )
    macs = {**dict.fromkeys(MACS, VIF_MAC), "eth0": UP_MAC}
    with cabled(macs, *addresses, "route add default dev eth0"):
        here = f"add element {GUARD} here4 {{ eth0 . {OWN[4]} }}\n"
        nft(GUARD_TEXT + "".join(known()) + here)
        yield


def among(lone: int, version: int) -> bytes:
    """Return what arrives first of two datagrams, of which one is in fragments.

    Another client has sent ``lone`` ones before, of which the others never come.
    """
    ends = {name: own[version] for name, own in CLIENTS.items()}
    other, genuine = (Datagram(n, a, HERE[version]) for n, a in ends.items())
    family = {4: socket.AF_INET, 6: socket.AF_INET6}[version]
    with (
        socket.socket(family, socket.SOCK_DGRAM) as here,
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out,
    ):
        here.bind((genuine.target, PORT))
        here.settimeout(PATIENCE)
        for number in range(lone):
            frame = other.fragment(b"y" * 1400, LONE, number)
            out.sendto(frame, ("far-vif1.0", 0))
        first = genuine.begin()
        out.sendto(genuine.fragment(first, 0, 1), ("far-vif2.0", 0))
        out.sendto(genuine.fragment(GENUINE, len(first), 1), ("far-vif2.0", 0))
        with socket.socket(family, socket.SOCK_DGRAM) as last:
            last.sendto(LAST, (genuine.target, PORT))
        return here.recv(2048)[-len(GENUINE) :]


@pytest.mark.parametrize("version", [4, 6])
def test_lone_fragments_of_a_client_leave_room_for_others(version: int) -> None:
    """The control: in what the kernel gives by itself there is none."""
    assert among(MANY, version) == LAST
    sysctl.harden(Role.HOST)
    assert among(MANY, version) == GENUINE


def heard(genuine: Datagram, stranger: str) -> bytes:
    """Return the end of what arrives when a stranger's part was there before."""
    version = ip_address(genuine.sender).version
    family = {4: socket.AF_INET, 6: socket.AF_INET6}[version]
    with (
        socket.socket(family, socket.SOCK_DGRAM) as here,
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as near,
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as far,
    ):
        here.bind((genuine.target, PORT))
        here.settimeout(PATIENCE)
        near.bind((f"far-{genuine.device}", 0))
        far.bind((f"far-{stranger}", 0))
        first = genuine.begin()
        forged = Datagram(stranger, genuine.sender, genuine.target)
        far.send(forged.fragment(PLANTED, len(first), 1))
        near.send(genuine.fragment(first, 0, 1))
        near.send(genuine.fragment(GENUINE, len(first), 1))
        return here.recv(2048)[-len(GENUINE) :]


WAYS = {
    "what another client sends": ("vif2.0", None, HERE, "vif1.0"),
    "what a client sends, from the uplink": ("vif2.0", None, HERE, "eth0"),
    "what a server answers": ("eth0", SERVER, OWN, "vif1.0"),
}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("what", WAYS)
def test_a_fragment_of_somebody_else_is_no_part_of(what: str, version: int) -> None:
    """The control: without the guard it is."""
    device, sender, target, stranger = WAYS[what]
    source = (sender or CLIENTS[device])[version]
    genuine = Datagram(device, source, target[version])

    assert heard(genuine, stranger) == GENUINE
    nft(UNGUARDED)
    assert heard(genuine, stranger) == PLANTED

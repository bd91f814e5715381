# SPDX-License-Identifier: GPL-2.0-or-later
"""The sniffer sees every frame, both ways, and admits what it lost."""

import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from controller import namespaces
from controller.lab.addresses import WEB
from tests.lab import attacks, sniffer
from tests.lab.ends import MARKER
from tests.lab.routed import CLIENT_MAC, VIF_MAC, Routed, routed
from tests.lab.sniffer import LostError, Sniffer, parse

ETHER = bytes.fromhex(VIF_MAC.replace(":", "") + CLIENT_MAC.replace(":", ""))
SOURCE6 = ip_address("fd09:24ef:4179::a89:5").packed
UDP_HEADER = struct.pack("!HHHH", 4444, 53, 8 + len(MARKER), 0) + MARKER
UNREACHABLE = 3
ARP_WHO_HAS = bytes.fromhex("0001080006040001") + bytes(6) + b"\x0a\x89\x00\x05"


def ipv4(protocol: int, body: bytes, fragment: int = 0) -> bytes:
    head = struct.pack(
        "!BBHHHBBH", 0x45, 0, 20 + len(body), 1, fragment, 64, protocol, 0
    )
    return ETHER + b"\x08\x00" + head + b"\x0a\x89\x00\x05\xc6\x33\x64\x50" + body


def ipv6(protocol: int, body: bytes) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(body), protocol, 64)
    return ETHER + b"\x86\xdd" + head + SOURCE6 + SOURCE6 + body


def option(protocol: int, body: bytes) -> bytes:
    return bytes([protocol, 0, 1, 4, 0, 0, 0, 0]) + body


def piece(protocol: int, offset: int, body: bytes) -> bytes:
    return struct.pack("!BBHI", protocol, 0, offset << 3, 7) + body


@pytest.fixture(scope="module")
def row(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Routed]:
    with routed(tmp_path_factory.mktemp("row")) as made:
        yield made


@pytest.mark.parametrize(
    ("raw", "protocol", "ports", "icmp_type"),
    [
        (ipv4(17, UDP_HEADER), 17, (4444, 53), None),
        (ipv4(6, UDP_HEADER), 6, (4444, 53), None),
        (ipv4(17, UDP_HEADER, fragment=50), 17, (None, None), None),
        (ipv4(1, b"\x08\x00"), 1, (None, None), 8),
        (ipv4(47, MARKER), 47, (None, None), None),
        (ipv6(17, UDP_HEADER), 17, (4444, 53), None),
        (ipv6(0, option(60, option(17, UDP_HEADER))), 17, (4444, 53), None),
        (ipv6(44, piece(17, 0, UDP_HEADER)), 17, (4444, 53), None),
        (ipv6(44, piece(17, 9, UDP_HEADER)), 17, (None, None), None),
        (ipv6(51, bytes([17, 1]) + bytes(10) + UDP_HEADER), 17, (4444, 53), None),
        (ipv6(58, b"\x87\x00"), 58, (None, None), 135),
    ],
    ids=[
        "udp", "tcp", "later fragment", "icmp", "gre", "udp6", "two options",
        "first fragment", "later fragment6", "authentication", "icmp6",
    ],
)  # fmt: skip
def test_a_packet_is_read_down_to_its_ports(
    raw: bytes,
    protocol: int,
    ports: tuple[int | None, int | None],
    icmp_type: int | None,
) -> None:
    packet = parse(raw)
    assert (packet.mac_source, packet.mac_destination) == (CLIENT_MAC, VIF_MAC)
    assert packet.source in (ip_address("10.137.0.5"), ip_address(SOURCE6))
    assert packet.protocol == protocol
    assert (packet.source_port, packet.port) == ports
    assert packet.icmp_type == icmp_type


def test_arp_names_its_sender_and_its_target() -> None:
    packet = parse(ETHER + b"\x08\x06" + ARP_WHO_HAS + bytes(6) + b"\x0a\x89\x00\x06")
    assert packet.neighbourly
    assert (str(packet.source), str(packet.destination)) == ("10.137.0.5", "10.137.0.6")


@pytest.mark.parametrize("length", range(14, 60))
def test_a_cut_frame_is_still_a_packet(length: int) -> None:
    for raw in (ipv4(17, UDP_HEADER), ipv6(0, option(17, UDP_HEADER))):
        assert parse(raw[:length]).mac_source == CLIENT_MAC


@pytest.mark.kernel
def test_a_vlan_tag_that_the_kernel_strips_is_put_back(row: Routed) -> None:
    tagged = ETHER + b"\x81\x00\x00\x05" + ipv4(17, UDP_HEADER)[12:]
    with Sniffer(row.router, "vif1.0") as wire:
        attacks.send(row.client, "eth0", [tagged])
    (packet,) = wire.marked
    assert (packet.raw, packet.vlan, packet.port) == (tagged, 5, 53)


@pytest.mark.kernel
def test_both_directions_of_every_interface_are_seen(row: Routed) -> None:
    with Sniffer(row.router, "vif1.0", "eth0") as wire:
        with namespaces.inside(row.client):
            asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with asking:
            asking.connect((str(WEB[0]), 9))
            asking.send(MARKER)
            wire.wait(lambda packet: packet.icmp_type == UNREACHABLE)
    seen = {(packet.interface, packet.outgoing) for packet in wire.marked}
    assert seen == {
        ("vif1.0", False),
        ("eth0", True),
        ("eth0", False),
        ("vif1.0", True),
    }


@pytest.mark.kernel
def test_foreign_is_what_nobody_allowed(row: Routed) -> None:
    frames = [ipv4(17, UDP_HEADER), ipv6(17, UDP_HEADER)]
    with Sniffer(row.router, "vif1.0") as wire:
        attacks.send(row.client, "eth0", frames)
    assert wire.foreign(lambda packet: packet.raw != frames[1]) == [
        parse(frames[1], "vif1.0")
    ]


@pytest.mark.kernel
def test_waiting_in_vain_is_a_failure(row: Routed) -> None:
    with Sniffer(row.internet.net, row.port) as wire, pytest.raises(LostError):
        wire.wait(lambda packet: packet.port == 1, within=0.05)


@pytest.mark.kernel
def test_a_capture_with_a_hole_is_no_evidence(
    row: Routed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sniffer, "BUFFER", 4096)
    frames = [ipv4(17, UDP_HEADER)] * 20000
    with pytest.raises(LostError, match="dropped"), Sniffer(row.router, "vif1.0"):
        attacks.send(row.client, "eth0", frames)


@pytest.mark.kernel
def test_a_burst_is_captured_whole(row: Routed) -> None:
    frames = [ipv4(17, UDP_HEADER)] * 20000
    with Sniffer(row.router, "vif1.0") as wire:
        attacks.send(row.client, "eth0", frames)
    assert sum(not packet.outgoing for packet in wire.marked) == len(frames)

# SPDX-License-Identifier: GPL-2.0-or-later
"""The bytes of a flow's first packet, by hand: scapy takes 100 times as long.

The source address is 10.0.0.0 or fd00:: plus a number, so each packet is a flow
of its own and can be told apart when it comes out.
"""

import struct
from ipaddress import IPv4Address, IPv6Address

from rules.decide import Packet

TCP, UDP, GRE, SCTP = 6, 17, 47, 132
SOURCE4 = IPv4Address("10.0.0.0")
SOURCE6 = IPv6Address("fd00::")

_TCP_SYN = struct.pack("!IIBBHHH", 1, 0, 5 << 4, 0x02, 1024, 0, 0)
_SCTP_INIT = struct.pack("!IIBBHIIHHI", 0, 0, 1, 0, 20, 1, 4096, 1, 1, 1)
_NOPS = bytes([1, 1, 1, 1])
_PADDING = bytes([1, 4, 0, 0, 0, 0])
_HOP_BY_HOP, _DESTINATION_OPTIONS = 0, 60


def first_packet(packet: Packet, number: int) -> bytes:
    """Return an IP packet; every few have IPv4 options or IPv6 extension headers."""
    upper = _upper(packet)
    match packet.dst:
        case IPv4Address():
            return _ipv4(packet, number, upper)
        case IPv6Address():
            return _ipv6(packet, number, upper)


def number_of(raw: bytes) -> int:
    """Return the number of a packet that came out."""
    if raw[0] >> 4 == 4:
        return int.from_bytes(raw[12:16], "big") - int(SOURCE4)
    return int.from_bytes(raw[8:24], "big") - int(SOURCE6)


def _upper(packet: Packet) -> bytes:
    if packet.proto == TCP:
        return struct.pack("!HH", 40000, packet.port or 0) + _TCP_SYN
    if packet.proto == UDP:
        return struct.pack("!HHHH4s", 40000, packet.port or 0, 12, 0, b"data")
    if packet.icmp_type is not None:
        return struct.pack("!BBHHH", packet.icmp_type, 0, 0, 7, 1)
    if packet.proto == SCTP:
        return struct.pack("!HH", 40000, 80) + _SCTP_INIT
    if packet.proto == GRE:
        return struct.pack("!HH8s", 0, 0x0800, b"whatever")
    return struct.pack("!HH8s", 40000, 80, b"whatever")


def _ipv4(packet: Packet, number: int, upper: bytes) -> bytes:
    options = _NOPS if number % 7 == 0 else b""
    header = struct.pack(
        "!BBHHHBBH4s4s",
        (4 << 4) + 5 + len(options) // 4,
        0,
        20 + len(options) + len(upper),
        0,
        0,
        64,
        packet.proto,
        0,
        (int(SOURCE4) + number).to_bytes(4, "big"),
        packet.dst.packed,
    )
    header += options
    total = sum(struct.unpack(f"!{len(header) // 2}H", header))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return header[:10] + checksum.to_bytes(2, "big") + header[12:] + upper


def _ipv6(packet: Packet, number: int, upper: bytes) -> bytes:
    following = packet.proto
    extensions = b""
    for kind, every in ((_DESTINATION_OPTIONS, 5), (_HOP_BY_HOP, 7)):
        if number % every == 0:
            extensions = bytes([following, 0]) + _PADDING + extensions
            following = kind
    payload = extensions + upper
    return (
        struct.pack("!IHBB", 6 << 28, len(payload), following, 64)
        + (int(SOURCE6) + number).to_bytes(16, "big")
        + packet.dst.packed
        + payload
    )

# SPDX-License-Identifier: GPL-2.0-or-later
"""A packet as bytes, and bytes as the fields of a proof."""

import struct
from collections.abc import Mapping

from proof.fields import (
    DPORT,
    DST,
    INVALID,
    IPV4,
    L4,
    PROTO,
    SPORT,
    SRC,
    TRANSPORT,
    WHOLE,
)
from proof.world import Packet

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
SYN, RST = 0x02, 0x04
FLAGS = "transport header byte 13"
_ETHERTYPES = {4: 0x0800, 6: 0x86DD}
_UDP = 8  # bytes of its header
_MOST = 1400  # bytes, so that it fits
_TTL = 64
_PSEUDO = {4: "!4s4sxBH", 6: "!16s16sxxBBI"}
_CHECKSUMS = {TCP: 16, UDP: 6, ICMP: 2, ICMPV6: 2}  # offset in the header
_HEADERS = {4: 20, 6: 40}


def frame(packet: Packet, target: str, payload: bytes = b"") -> bytes:
    """Return it in an Ethernet frame to the address ``target``.

    What conntrack is to find invalid gets a checksum that is wrong.
    """
    source = packet.mac or "02:00:00:00:00:01"
    ends = [bytes.fromhex(mac.replace(":", "")) for mac in (target, source)]
    kind = struct.pack("!H", _ETHERTYPES[packet.version])
    return b"".join(ends) + kind + raw(packet, payload)


def raw(packet: Packet, payload: bytes = b"") -> bytes:
    """Return the IP packet."""
    upper = _upper(packet, payload)
    ends = packet.source.packed + packet.destination.packed
    ttl = packet.fields.get(
        f"network header byte {8 if packet.version == IPV4 else 7}", _TTL
    )
    tos = packet.fields.get("network header byte 1", 0)
    if packet.version != IPV4:
        first = 6 << 28 | tos << 20
        return (
            struct.pack("!IHBB", first, len(upper), packet.protocol, ttl) + ends + upper
        )
    options = bytes([1, 1, 1, 1]) if _words(packet) > _HEADERS[4] // 4 else b""
    words = 5 + len(options) // 4
    length = 4 * words + len(upper)
    head = struct.pack(
        "!BBHHHBBH", 64 + words, tos, length, 7, 0, ttl, packet.protocol, 0
    )
    head += ends + options
    return head[:10] + _checksum(head) + head[12:] + upper


def _words(packet: Packet) -> int:
    return packet.fields.get("network header byte 0", 0x45) & 0xF


def _upper(packet: Packet, payload: bytes) -> bytes:
    words = struct.pack("!HH", packet.first, packet.second)
    match packet.protocol:
        case 6:
            flags = packet.fields.get(FLAGS, SYN)
            found = words + struct.pack("!IIBBHHH", 1, 0, 80, flags, 1024, 0, 0)
        case 17:
            name = "transport header byte"
            high, low = (packet.fields.get(f"{name} {n}", 0) for n in (4, 5))
            more = (high << 8 | low) - _UDP - len(payload)
            if 0 < more < _MOST:
                payload = bytes(more) + payload
            found = words + struct.pack("!HH", _UDP + len(payload), 0)
        case 1 | 58:
            name = "transport header byte"
            high, low = (packet.fields.get(f"{name} {n}", 7) for n in (4, 5))
            found = struct.pack("!HHBBH", packet.first, 0, high, low, 1)
        case _:
            found = words + bytes(16)
    found += payload
    place = _CHECKSUMS.get(packet.protocol)
    if place is None:
        return found
    data = found if packet.protocol == ICMP else _pseudo(packet, found) + found
    total = _checksum(data)
    if packet.state == INVALID:
        total = bytes([total[0] ^ 0x55, total[1]])
    return found[:place] + total + found[place + 2 :]


def _pseudo(packet: Packet, upper: bytes) -> bytes:
    """Return what checksums are about, too (RFC 9293, 3.1; RFC 8200, 8.1)."""
    ends = packet.source.packed + packet.destination.packed
    length = len(upper)
    if packet.version == IPV4:
        return ends + struct.pack("!BBH", 0, packet.protocol, length)
    return ends + struct.pack("!IHBB", length, 0, 0, packet.protocol)


def _checksum(data: bytes) -> bytes:
    """Return the Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total = sum(int.from_bytes(data[n : n + 2], "big") for n in range(0, len(data), 2))
    total = (total & 0xFFFF) + (total >> 16)
    return (~((total & 0xFFFF) + (total >> 16)) & 0xFFFF).to_bytes(2, "big")


def point(packet: Packet) -> Mapping[str, int]:
    """Return the fields of the packet as it comes in, all that its bytes tell."""
    data = raw(packet)
    size = 4 * _words(packet) if packet.version == IPV4 else _HEADERS[6]
    upper = data[size:]
    found = {
        SRC: int(packet.source),
        DST: int(packet.destination),
        PROTO: packet.protocol,
        SPORT: int.from_bytes(upper[:2], "big"),
        DPORT: int.from_bytes(upper[2:4], "big"),
        L4: WHOLE,
        TRANSPORT: min(len(upper), 255),
        "length": len(data),
    }
    for place, byte in enumerate(data[: _HEADERS[packet.version]]):
        found[f"network header byte {place}"] = byte
    for place, byte in enumerate(upper[:64]):
        found[f"transport header byte {place}"] = byte
    if packet.mac is not None:
        found["frame source"] = int(packet.mac.replace(":", ""), 16)
    return found

# SPDX-License-Identifier: GPL-2.0-or-later
"""IP packets by hand, and what the fields of a proof are for each of them.

A packet ends in a mark of its own, so it is known again behind the router,
whatever happened to its headers.
"""

import struct
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

from proof import fields

MAGIC = b"\xa5\x5a\xc3\x3c"
TCP, UDP, ICMP, ICMPV6, SCTP = 6, 17, 1, 58, 132
_PADDING = bytes([1, 4, 0, 0, 0, 0])
_HOP_BY_HOP, _DESTINATION_OPTIONS, _FRAGMENT = 0, 60, 44
_EIGHT = 8  # bytes: the unit of a fragment's offset


@dataclass(frozen=True, slots=True)
class Raw:
    """A packet.  ``first`` and ``second`` are the two words that ports are in;

    ``flags`` are those of TCP; ``offset`` is that of a later fragment, in units
    of 8 bytes; ``options`` says whether there are options or extension headers.
    """

    src: IPv4Address | IPv6Address
    dst: IPv4Address | IPv6Address
    proto: int
    first: int = 0
    second: int = 0
    flags: int = 0x02
    ttl: int = 64
    tos: int = 0
    offset: int = 0
    options: bool = False

    @property
    def _size(self) -> int:
        return 20 if self.src.version == 4 else 40

    def upper(self, number: int) -> bytes:
        """Return the transport header and the mark."""
        mark = MAGIC + number.to_bytes(4, "big")
        words = struct.pack("!HH", self.first, self.second)
        if self.proto == TCP:
            return words + struct.pack("!IIBBHHH", 1, 0, 80, self.flags, 9, 0, 0) + mark
        if self.proto == UDP:
            return words + struct.pack("!HH", 16, 0) + mark
        if self.proto == SCTP:
            init = struct.pack("!IIBBHIIHHI", 0, 0, 1, 0, 20, 1, 4096, 1, 1, 1)
            return words + init + mark
        return words + bytes(4) + mark

    def packed(self, number: int) -> bytes:
        """Return the whole packet."""
        upper = self.upper(number)
        return self._ipv4(upper) if self.src.version == 4 else self._ipv6(upper)

    def _ipv4(self, upper: bytes) -> bytes:
        options = bytes([1, 1, 1, 1]) if self.options else b""
        size = 20 + len(options)
        header = struct.pack(
            "!BBHHHBBH",
            64 + size // 4,
            self.tos,
            size + len(upper),
            7,
            self.offset,
            self.ttl,
            self.proto,
            0,
        )
        header += self.src.packed + self.dst.packed + options
        return header[:10] + checksum(header) + header[12:] + upper

    def _ipv6(self, upper: bytes) -> bytes:
        following, extensions = self.proto, b""
        if self.offset:
            offset = struct.pack("!BBHI", following, 0, self.offset * _EIGHT, 7)
            following, extensions = _FRAGMENT, offset
        if self.options:
            for kind in (_DESTINATION_OPTIONS, _HOP_BY_HOP):
                extensions = bytes([following, 0]) + _PADDING + extensions
                following = kind
        payload = extensions + upper
        head = struct.pack(
            "!IHBB", 6 << 28 | self.tos << 20, len(payload), following, self.ttl
        )
        return head + self.src.packed + self.dst.packed + payload

    def point(self, iif: int, oif: int) -> dict[str, int]:
        """Return the fields of a proof, as in hook forward of a router."""
        upper = self.upper(0)
        if self.offset and self.src.version == 6:
            # ipv6_find_hdr() leaves the offset of the transport header at 0.
            upper = self.packed(0)
        found = {
            fields.IIF: iif,
            fields.OIF: oif,
            fields.SRC: int(self.src),
            fields.DST: int(self.dst),
            fields.ORIGINAL_DST: int(self.dst),
            fields.PROTO: self.proto,
            fields.SPORT: int.from_bytes(upper[:2], "big"),
            fields.DPORT: int.from_bytes(upper[2:4], "big"),
            fields.L4: fields.LATER_FRAGMENT if self.offset else fields.WHOLE,
            fields.TRANSPORT: len(upper),
            fields.FRAGMENTS: 1,
            "length": len(self.packed(0)),
        }
        # The router has counted the packet's time down before it is filtered.
        header = replace(self, ttl=self.ttl - 1).packed(0)[: self._size]
        for place, byte in enumerate(header):
            found[f"network header byte {place}"] = byte
        for place in range(4, len(upper)):
            found[f"transport header byte {place}"] = upper[place]
        return found


def checksum(header: bytes) -> bytes:
    """Return the Internet checksum (RFC 1071)."""
    total = sum(struct.unpack(f"!{len(header) // 2}H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return (~((total & 0xFFFF) + (total >> 16)) & 0xFFFF).to_bytes(2, "big")


def number_of(raw: bytes) -> int | None:
    """Return the number of a packet that came out, None if it is not one of ours."""
    mark = raw[-8:]
    return int.from_bytes(mark[4:], "big") if mark[:4] == MAGIC else None

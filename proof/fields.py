# SPDX-License-Identifier: GPL-2.0-or-later
"""A packet's fields, and what the loads of the bytecode take from them.

The order is the one that keeps diagrams small: interfaces and sender first.
Fields that are looked at by few rules are added when a load asks for them.

Fields are independent of each other, though real packets are not (a fragment
has its offset in two places): the packets of a proof are more than the real
ones.  One assumption: frames carry no VLAN tag in what netfilter sees.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from proof.bytecode import Family
from proof.diagram import Node
from proof.routes import Link
from proof.space import Space
from proof.values import Atom, FieldByte, ImageByte, Value

IPV4, IPV6 = 4, 6
_BYTE = 8  # bits
_WORD = 4  # bytes

IIF, OIF, SRC, DST = "iif", "oif", "source", "destination"
CT, PROTO, SPORT, DPORT = "ct", "protocol", "source port", "destination port"
ORIGINAL_DST = "ct original destination"
L4, TRANSPORT, FRAMED = "transport header", "transport length", "link header"
MARK, CT_MARK, SOCKET, UID = "mark", "ct mark", "socket", "uid"

# Values of field CT: what conntrack says of the packet (enum ip_conntrack_info).
NEW, ESTABLISHED, RELATED, ESTABLISHED_REPLY, RELATED_REPLY = 0, 1, 2, 3, 4
INVALID, UNTRACKED = 5, 6
_STATES = {NEW: 8, ESTABLISHED: 2, RELATED: 4, ESTABLISHED_REPLY: 2, RELATED_REPLY: 4}
_DIRECTIONS = {NEW: 0, ESTABLISHED: 0, RELATED: 0}
_REPLY = 1

FRAGMENTS = "ports are read in later fragments"
_FAST = {1, 2, 4}  # bytes

# Values of field L4: is there a transport header to look at?
UNKNOWN_PROTOCOL, WHOLE, LATER_FRAGMENT = 0, 1, 2

_TYPES = {IPV4: 0x0800, IPV6: 0x86DD}
_BITS = {IPV4: 32, IPV6: 128}
_HEADERS = {IPV4: 20, IPV6: 40}  # bytes that are always there
_SENDER = {IPV4: 12, IPV6: 8}  # offset of the source address
_PROTOCOL_BYTE = 9  # of an IPv4 header
_PROTOCOLS = {IPV4: 2, IPV6: 10}  # NFPROTO_…
_ETHERTYPE = 12  # offset in an Ethernet header


@dataclass(frozen=True, slots=True)
class Load:
    """What a load gives, and the packets for which there is something to load."""

    value: Value
    present: Node


@dataclass(slots=True)
class Fields:
    """The fields of the packets of one IP version, on a host with these links."""

    space: Space
    version: int
    links: tuple[Link, ...] = ()
    images: dict[str, Node] = field(default_factory=dict)

    @property
    def bits(self) -> int:
        """The number of bits of an address."""
        return _BITS[self.version]

    def big(self, name: str, width: int) -> Value:
        """Return a field in network byte order, ``width`` bits wide."""
        level = self.space.field(name, width)
        return tuple(
            FieldByte(level, shift) for shift in range(width - _BYTE, -1, -_BYTE)
        )

    def little(self, name: str, width: int) -> Value:
        """Return a field in the byte order of this machine."""
        return self.big(name, width)[::-1]

    def word(self, name: str, width: int) -> Value:
        """Return a small field as a whole register."""
        small = self.little(name, -(-width // _BYTE) * _BYTE)
        return small + (0,) * (_WORD - len(small))

    def always(self, value: Value) -> Load:
        """Return a load that never fails."""
        return Load(value, self.space.true)

    def only(self, value: Value, name: str, *numbers: int) -> Load:
        """Return a load that fails unless a field is one of these numbers."""
        level = self.space.levels[name]
        return Load(value, self.space.within(level, *((n, n) for n in numbers)))

    def flag(self, name: str) -> Node:
        """Return the packets for which something not modelled further holds."""
        return self.space.within(self.space.field(name, 1), (1, 1))

    def image(self, name: str, of: str, table: dict[int, bytes]) -> Node:
        """Return the diagram of a function of one field, given as a table."""
        if name not in self.images:
            level = self.space.levels[of]
            rows = [
                self.space.spans(level, [(number, number)], self.space.leaf(value))
                for number, value in sorted(table.items())
            ]
            self.images[name] = self.space.fold(
                self.space.over, rows, self.space.nothing
            )
        return self.images[name]

    def pictured(self, name: str, of: str, table: dict[int, bytes]) -> Load:
        """Return a load of such a function; it fails where that says nothing."""
        image = self.image(name, of, table)
        size = max((len(value) for value in table.values()), default=0)
        there = [(number, number) for number in table]
        level = self.space.levels[of]
        atoms: list[Atom] = [ImageByte(image, index) for index in range(size)]
        return Load(tuple(atoms), self.space.within(level, *there))

    def tracked(self, value: Value) -> Load:
        """Return a load that needs a conntrack entry."""
        return self.only(value, CT, *_STATES)

    def state(self) -> Load:
        """Return ``ct state`` (nft_ct_get_eval())."""
        bits = {**_STATES, INVALID: 1, UNTRACKED: 64, 7: 64}
        table = {number: bit.to_bytes(4, "little") for number, bit in bits.items()}
        return self.pictured("ct state", CT, table)

    def direction(self) -> Load:
        """Return ``ct direction``."""
        table = {
            number: bytes([_DIRECTIONS.get(number, _REPLY), 0, 0, 0])
            for number in _STATES
        }
        return self.pictured("ct direction", CT, table)

    def original(self, reply: int, source: int) -> Value:
        """Return an address of the conntrack entry."""
        way = "reply" if reply else "original"
        end = "source" if source else "destination"
        return self.big(f"ct {way} {end}", self.bits)

    def name(self, field_name: str) -> Load:
        """Return the name of the interface in a field; empty if there is none.

        An interface that the snapshot does not have has no name.
        """
        table = {link.index: link.name.encode().ljust(16, b"\0") for link in self.links}
        return self.pictured(f"{field_name} name", field_name, {0: bytes(16), **table})

    def network(self, offset: int, length: int) -> Load:
        """Return bytes of the IP header."""
        present: Node = self.space.true
        if offset + length > _HEADERS[self.version]:
            present = self.flag(f"network header has {offset + length} bytes")
        value = tuple(self._network_byte(n) for n in range(offset, offset + length))
        return Load(value, present)

    def _network_byte(self, offset: int) -> Atom:
        start, size = _SENDER[self.version], self.bits // _BYTE
        if start <= offset < start + 2 * size:
            later, place = divmod(offset - start, size)
            return self.big(DST if later else SRC, self.bits)[place]
        if self.version == IPV4 and offset == _PROTOCOL_BYTE:
            return self.big(PROTO, _BYTE)[0]
        return self.big(f"network header byte {offset}", _BYTE)[0]

    def transport(self, offset: int, length: int) -> Load:
        """Return bytes of the transport header.

        There is none in a later fragment.  But nft_payload_fast_eval(), which
        does the loads of 1, 2 and 4 aligned bytes, reads what is in its place
        (measured on Linux 6.18; in IPv6, it is the start of the IP header);
        `FRAGMENTS` says whether this kernel does.
        """
        space = self.space
        known = space.levels[TRANSPORT]
        top = space.tops[known]
        present = space.within(space.levels[L4], (WHOLE, WHOLE))
        if length in _FAST and offset % length == 0:
            later = space.within(space.levels[L4], (LATER_FRAGMENT, LATER_FRAGMENT))
            read = space.both(later, self.flag(FRAGMENTS))
            present = space.either(present, read)
        reaches = space.within(known, (min(offset + length, top), top))
        value = tuple(self._transport_byte(n) for n in range(offset, offset + length))
        return Load(value, space.both(present, reaches))

    def _transport_byte(self, offset: int) -> Atom:
        if offset < 2 * len((SPORT, DPORT)):
            return self.big((SPORT, DPORT)[offset // 2], 16)[offset % 2]
        return self.big(f"transport header byte {offset}", _BYTE)[0]

    def frame(self, offset: int, length: int) -> Load:
        """Return bytes of the Ethernet header."""
        kind = _TYPES[self.version].to_bytes(2, "big")
        addresses = self.big("frame destination", 48) + self.big("frame source", 48)
        value = tuple(
            addresses[n]
            if n < len(addresses)
            else kind[n - _ETHERTYPE]
            if n < _ETHERTYPE + len(kind)
            else self.big(f"frame byte {n}", _BYTE)[0]
            for n in range(offset, offset + length)
        )
        return Load(value, self.flag(FRAMED))

    def protocol_of(self, family: int) -> int:
        """Return what ``meta nfproto`` is in a chain of this family."""
        return Family.NETDEV if family == Family.NETDEV else _PROTOCOLS[self.version]

    def ethertype(self) -> Value:
        """Return ``meta protocol``."""
        return tuple(_TYPES[self.version].to_bytes(2, "big"))


def layout(version: int, links: Iterable[Link], space: Space) -> Fields:
    """Return the fields of a version, the usual ones in their order in ``space``."""
    bits = _BITS[version]
    for name, width in (
        (IIF, 32),
        (SRC, bits),
        (OIF, 32),
        (CT, 3),
        (PROTO, 8),
        (ORIGINAL_DST, bits),
        (DST, bits),
        (DPORT, 16),
        (SPORT, 16),
        (L4, 2),
        (TRANSPORT, 8),
        (FRAMED, 1),
        (SOCKET, 1),
        (FRAGMENTS, 1),
    ):
        space.field(name, width)
    return Fields(space, version, tuple(links))

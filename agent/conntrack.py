# SPDX-License-Identifier: GPL-2.0-or-later
"""The live connections of this network namespace (ctnetlink).

The kernel filters an IPv4 dump by address (CTA_FILTER, Linux 5.8), so the flows
of others need no decoding, and deletes by address too, or by all that the first
packet of a flow is told by but its source port (Linux 6.11).  A dump locks
each bucket of a table that all namespaces share, 11 ms where there are 262,144; a
deletion passes by the empty ones, 0.2 ms.  The kernel's comparison of IPv6
addresses is inverted (ctnetlink_filter_match_tuple, seen in 6.18), so those are
dumped and picked here.
A connection is deleted by the very bytes that named it, so any protocol can be,
also those nobody here has heard of.  pyroute2's NFCTSocket has neither.
"""

import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from errno import EINVAL, ENOENT
from ipaddress import IPv4Address, IPv6Address

from agent import sysctl
from agent.capacity import capacity
from agent.netlink import (
    NETFILTER,
    Message,
    Netlink,
    Request,
    attribute,
    attributes,
)
from agent.ports import LiveFlow, NetlinkError
from agent.rtnetlink import NUMBERS
from rules.decide import Packet
from rules.model import Address, Family, family

_GET, _DELETE = 0x101, 0x102  # NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_…
_HEADER = struct.Struct("=BBH")  # struct nfgenmsg: family, version, resource
_PORT = struct.Struct(">H")
_ORIGINAL, _REPLY, _ID, _ZONE, _FILTER = 1, 2, 12, 18, 25  # CTA_…
_TUPLE_IP, _TUPLE_PROTO = 1, 2  # CTA_TUPLE_…
_SOURCE = {Family.IPV4: 1, Family.IPV6: 3}  # CTA_IP_V4_SRC, CTA_IP_V6_SRC
_TARGET = {Family.IPV4: 2, Family.IPV6: 4}
# Where that address is in a message, and its length: behind three attribute headers.
_ATTRIBUTE = 4  # bytes
_FIRST = _HEADER.size + 3 * _ATTRIBUTE
_LENGTH = {Family.IPV4: 4, Family.IPV6: 16}
_NUMBER, _TO_PORT = 1, 3  # CTA_PROTO_…
_WITH_PORTS = frozenset({6, 17, 33, 132, 136})  # TCP, UDP, DCCP, SCTP, UDP-Lite
_ICMP_TYPE, _ICMPV6_TYPE = 5, 8
# CTA_FILTER_ORIG_FLAGS and _REPLY_FLAGS by CTA_TUPLE_…, and the flags that make
# them look at the source, and at all of a packet but its source port
# (CTA_FILTER_F_CTA_IP_SRC, _IP_DST, _PROTO_NUM, _PROTO_DST_PORT).
_LOOK, _LOOK_AT_ALL = (struct.pack("=I", flags) for flags in (1, 1 | 2 | 8 | 32))
_NESTED = 0x8000
_GONE = frozenset({ENOENT})

COUNT = "netfilter/nf_conntrack_count"
"""Flows of this namespace.  A dump walks the table that all of them share."""
SOME = 32
"""So many addresses are looked for one by one sooner than by one dump."""
FEW = 4096
"""So many flows are decoded sooner than the table is walked twice."""


class CtNetlink:
    """The port `agent.ports.Conntrack`, and `close`.

    ``deletes_by_address``: until the kernel says that it cannot.
    """

    def __init__(self, *, deletes_by_address: bool = True) -> None:
        self._kernel = Netlink(NETFILTER)
        self._deletes_by_address = deletes_by_address

    def close(self) -> None:
        """Close the socket."""
        self._kernel.close()

    def flows(self, *sources: Address) -> Iterator[LiveFlow]:
        """Return the connections that any of ``sources`` opened."""
        for version, found in self._of(sources, (_ORIGINAL,)):
            yield _flow(version, found)

    def delete(self, *flows: LiveFlow) -> None:
        """Cut connections; nothing happens if one is gone already."""
        self._kernel.do(*(_deletion(family(flow.src), flow.handle) for flow in flows))

    def end(self, source: Address, packets: Iterable[Packet]) -> bool:
        """Cut the connections that ``source`` opened by TCP or UDP packets like these.

        Return whether the kernel can find them; if not, nothing is cut.
        """
        if sysctl.read(COUNT) == 0:
            return True
        alike = [_like(source, packet) for packet in packets]
        return not alike or (family(source) is Family.IPV4 and self._delete(alike))

    def flush(self, *addresses: Address) -> None:
        """Cut every connection that any of ``addresses`` opened or answers."""
        if sysctl.read(COUNT) == 0:
            return
        known = [a for a in addresses if family(a) is Family.IPV4]
        if len(addresses) <= SOME and self._delete(
            _from(side, address) for address in known for side in (_ORIGINAL, _REPLY)
        ):
            addresses = tuple(a for a in addresses if a not in known)
        flows = self._of(addresses, (_ORIGINAL, _REPLY))
        self._kernel.do(*(_deletion(version, _name(found)) for version, found in flows))

    def full(self) -> tuple[int, int]:
        """Return how many connections there are, and how many there may be."""
        return sysctl.read(COUNT) or 0, capacity()

    def count(self, *sources: Address) -> Mapping[Address, Mapping[bytes, int]]:
        """Return how many connections each of ``sources`` opened to each address.

        One by one, for a full table takes 90 MB as a list.  The original direction
        comes first in a message, its addresses first in it, and the source first of
        those (ctnetlink_fill_info).
        """
        found = {a.packed: defaultdict[bytes, int](int) for a in sources}
        for version in {family(a) for a in sources}:
            length = _LENGTH[version]
            end, start = _FIRST + length, _FIRST + length + _ATTRIBUTE

            def take(
                message: Message, end: int = end, start: int = start, n: int = length
            ) -> None:
                of_source = found.get(message.body[_FIRST:end])
                if of_source is not None:
                    of_source[message.body[start : start + n]] += 1

            header = _HEADER.pack(NUMBERS[version], 0, 0)
            self._kernel.each(Request("count flows", _GET, header), take)
        return {a: found[a.packed] for a in sources}

    def _delete(self, bodies: Iterable[bytes]) -> bool:
        """Let the kernel find flows and delete them; return whether it can."""
        requests = [Request("delete flows", _DELETE, body) for body in bodies]
        try:
            if self._deletes_by_address:
                self._kernel.do(*requests)
        except NetlinkError as error:
            # An older kernel finds that half of a tuple is missing.
            if error.errno != EINVAL:
                raise
            self._deletes_by_address = False
        return self._deletes_by_address

    def _of(
        self, addresses: Iterable[Address], sides: tuple[int, ...]
    ) -> Iterator[tuple[Family, dict[int, bytes]]]:
        """Yield the flows one of whose ``sides`` comes from one of ``addresses``."""
        count = sysctl.read(COUNT)
        if count == 0:
            return
        several = len(sides) > 1 and count is not None and count < FEW
        for version in Family:
            wanted = {a.packed for a in addresses if family(a) is version}
            for body in self._dumps(version, wanted, () if several else sides):
                found = attributes(body, _HEADER.size)
                if any(_source(version, found[side]) in wanted for side in sides):
                    yield version, found

    def _dumps(
        self, version: Family, wanted: set[bytes], sides: tuple[int, ...]
    ) -> Iterator[bytes]:
        """Yield at least those that are wanted; for many, or no side, of all."""
        header = _HEADER.pack(NUMBERS[version], 0, 0)
        bodies = [header] if wanted else []
        if version is Family.IPV4 and len(wanted) == 1 and sides:
            bodies = [_from(side, IPv4Address(*wanted)) for side in sides]
        for body in bodies:
            for message in self._kernel.dump(Request("list flows", _GET, body)):
                if len(wanted) > 1 or next(iter(wanted)) in message.body:
                    yield message.body


def _from(side: int, address: Address) -> bytes:
    """Return what asks for the flows one side of which comes from an address."""
    version = family(address)
    ip = _nested(_TUPLE_IP, attribute(_SOURCE[version], address.packed))
    header = _HEADER.pack(NUMBERS[version], 0, 0)
    return header + _nested(side, ip) + _nested(_FILTER, attribute(side, _LOOK))


def _like(source: Address, packet: Packet) -> bytes:
    """Return what asks for the flows that such packets of an address opened."""
    version = family(source)
    ends = attribute(_SOURCE[version], source.packed)
    ends += attribute(_TARGET[version], packet.dst.packed)
    proto = attribute(_NUMBER, bytes([packet.proto]))
    proto += attribute(_TO_PORT, _PORT.pack(packet.port))
    wanted = _nested(_TUPLE_IP, ends) + _nested(_TUPLE_PROTO, proto)
    header = _HEADER.pack(NUMBERS[version], 0, 0)
    looked_at = _nested(_FILTER, attribute(_ORIGINAL, _LOOK_AT_ALL))
    return header + _nested(_ORIGINAL, wanted) + looked_at


def _source(version: Family, side: bytes) -> bytes:
    return attributes(attributes(side)[_TUPLE_IP])[_SOURCE[version]]


def _flow(version: Family, found: dict[int, bytes]) -> LiveFlow:
    address = IPv4Address if version is Family.IPV4 else IPv6Address
    original, reply = attributes(found[_ORIGINAL]), attributes(found[_REPLY])
    ends, proto = attributes(original[_TUPLE_IP]), attributes(original[_TUPLE_PROTO])
    number = proto[_NUMBER][0]
    # Of GRE it would be the key.
    port = proto.get(_TO_PORT) if number in _WITH_PORTS else None
    kind = proto.get(_ICMP_TYPE, proto.get(_ICMPV6_TYPE))
    return LiveFlow(
        src=address(ends[_SOURCE[version]]),
        dst=address(ends[_TARGET[version]]),
        proto=number,
        port=None if port is None else _PORT.unpack(port)[0],
        icmp_type=None if kind is None else kind[0],
        answered_by=address(attributes(reply[_TUPLE_IP])[_SOURCE[version]]),
        handle=_name(found),
    )


def _name(found: dict[int, bytes]) -> bytes:
    # The id tells a flow from a later one between the same ends.
    kinds = (kind for kind in (_ORIGINAL, _ID, _ZONE) if kind in found)
    return b"".join(attribute(kind, found[kind]) for kind in kinds)


def _deletion(version: Family, name: bytes) -> Request:
    body = _HEADER.pack(NUMBERS[version], 0, 0) + name
    return Request("delete a flow", _DELETE, body, fine=_GONE)


def _nested(kind: int, value: bytes) -> bytes:
    return attribute(kind | _NESTED, value)

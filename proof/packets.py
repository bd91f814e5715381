# SPDX-License-Identifier: GPL-2.0-or-later
"""From the points of a diagram to packets that can be shown and sent."""

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address

from proof.diagram import Node
from proof.explore import Point, fields_of
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
from proof.realm import Realm
from proof.space import Space
from proof.substitute import substitute
from proof.view import FRAME_SOURCE
from proof.wire import FLAGS, ICMP, ICMPV6, RST, SYN, TCP, UDP
from proof.world import Client, Packet

_OUTSIDE = {
    4: int(IPv4Address("198.51.100.80")),
    6: int(IPv6Address("2001:db8:80::80")),
}
_STRANGER = {4: IPv4Address("203.0.113.7"), 6: IPv6Address("2001:db8:7::7")}
_ECHO = {4: 8 << 8, 6: 128 << 8}
_FIRST_PORT = 40000
_JUDGED = (TCP, UDP, ICMP, ICMPV6)
_KEPT = ("uid", "socket", "transport header byte", "network header byte", "header ")


def liked(version: int, ct: int, client: Client | None) -> Mapping[str, Sequence[int]]:
    """Return numbers to prefer, so that an example is one that people know."""
    own = [int(_STRANGER[version])]
    if client is not None:
        own = [int(a) for a in client.addresses if a.version == version]
    mac = [int(client.mac.replace(":", ""), 16)] if client is not None else []
    # What conntrack finds invalid whatever its settings are: a reset of nothing.
    flags = RST if ct == INVALID else SYN
    return {
        SRC: own,
        DST: [_OUTSIDE[version]],
        PROTO: [TCP, UDP, ICMP if version == IPV4 else ICMPV6],
        DPORT: [443, 53, 22],
        SPORT: [_FIRST_PORT, _ECHO[version]],
        L4: [WHOLE],
        TRANSPORT: [20],
        FLAGS: [flags],
        FRAME_SOURCE: mac,
        "network header byte 0": [0x45 if version == IPV4 else 0x60],
        "network header byte 8": [64],
        "network header byte 7": [64],
    }


def sendable(space: Space, ct: int) -> Node:
    """Return the packets that can be brought about in a state of conntrack.

    Only what has a protocol of its own there is ever found to be invalid.
    """
    if ct != INVALID:
        return space.true
    return space.within(space.levels[PROTO], *((n, n) for n in _JUDGED))


def packet_of(version: int, ct: int, point: Point) -> Packet:
    """Return the packet that a point is, as it comes in."""
    address = IPv4Address if version == IPV4 else IPv6Address
    mac = point.get(FRAME_SOURCE, 0)
    octets = mac.to_bytes(6, "big")
    return Packet(
        address(point.get(SRC, 0)),
        address(point.get(DST, 0)),
        point.get(PROTO, 0),
        point.get(SPORT, 0),
        point.get(DPORT, 0),
        ":".join(f"{octet:02x}" for octet in octets) if mac else None,
        ct,
        {n: number for n, number in point.items() if n.startswith(_KEPT)},
    )


def doubts_of(realm: Realm, node: Node, point: Point) -> tuple[str, ...]:
    """Return what is not known and decides about one packet."""
    space = realm.space

    def words(level: int) -> int | None:
        return None if level in realm.doubts else point.get(space.names[level], 0)

    left = substitute(space, node, words)
    return tuple(dict.fromkeys(realm.doubts[n] for n in sorted(fields_of(left))))

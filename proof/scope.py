# SPDX-License-Identifier: GPL-2.0-or-later
"""Which packets there are: the fields of a proof allow for more."""

from proof.diagram import Node
from proof.fields import (
    IPV4,
    L4,
    PROTO,
    TRANSPORT,
    UNKNOWN_PROTOCOL,
    WHOLE,
)
from proof.incoming import LINK_LOCAL6, LINK_ONLY, LOCAL_TABLE, LOOPBACK4, NO_TARGET
from proof.realm import Realm
from proof.routes import Prefix
from proof.space import Space
from proof.tracked import NO_FLOW, never_tracked
from proof.view import FIRST_BYTE, FRAME_SOURCE, TIME
from proof.wire import SYN
from rules.decide import ICMP, ICMPV6, TCP, UDP

_HEADER = 8  # bytes of the shortest header among UDP and ICMP
_TCP_HEADER = 20  # bytes: conntrack takes no shorter one (tcp_error())
_FILLED = 20  # bytes of the shortest question to a resolver, with its UDP header
_MOST = 4  # the high byte of the length of a UDP packet that needs no fragments
_FAR = 32  # hops: no system starts with less
_NO_OPTIONS = {4: (0x45, 0x45), 6: (0x60, 0x6F)}
_ANY_OPTIONS = {4: (0x45, 0x4F), 6: (0x60, 0x6F)}


def long_enough(space: Space) -> Node:
    """Return the packets with a whole TCP, UDP or ICMP header, and all others."""
    with_header = [(number, number) for number in (ICMP, TCP, UDP, ICMPV6)]
    other = space.minus(space.true, space.within(space.levels[PROTO], *with_header))
    top = space.tops[space.levels[TRANSPORT]]
    long = space.within(space.levels[TRANSPORT], (_HEADER, top))
    short = space.within(space.levels[TRANSPORT], (0, _TCP_HEADER - 1))
    tcp = space.within(space.levels[PROTO], (TCP, TCP))
    return space.minus(space.either(other, long), space.both(tcp, short))


def whole(space: Space, version: int, ct: int) -> Node:
    """Return the packets that may be in a state of conntrack, after prerouting.

    Fragments have been put together (nf_defrag_ipv4, nf_defrag_ipv6).
    """
    kinds = [(WHOLE, WHOLE)]
    if ct in NO_FLOW:
        kinds.append((UNKNOWN_PROTOCOL, UNKNOWN_PROTOCOL))
    found = space.within(space.levels[L4], *kinds)
    if ct not in NO_FLOW:
        found = space.both(found, long_enough(space))
    start = space.within(space.levels[FIRST_BYTE], _ANY_OPTIONS[version])
    return space.both(found, start)


def ordinary(space: Space, version: int, mac: str) -> Node:
    """Return the first packets that a well-behaved client sends."""
    kind = space.within(space.levels[L4], (WHOLE, WHOLE))
    found = space.both(kind, long_enough(space))
    found = space.minus(found, never_tracked(space, version))
    number = int(mac.replace(":", ""), 16)
    wanted = {
        FRAME_SOURCE: (number, number),
        TIME[version]: (_FAR, 255),
        FIRST_BYTE: _NO_OPTIONS[version],
    }
    for name, span in wanted.items():
        found = space.both(found, space.within(space.levels[name], span))
    return space.both(found, _as_usual(space))


def _as_usual(space: Space) -> Node:
    """Return TCP that asks for a connection, UDP with something in it, and others."""
    high, low, flags = (
        space.field(f"transport header byte {n}", 8) for n in (4, 5, 13)
    )
    tcp, udp = (space.within(space.levels[PROTO], (n, n)) for n in (TCP, UDP))
    short = space.both(space.within(high, (0, 0)), space.within(low, (0, _FILLED - 1)))
    top = space.tops[space.levels[TRANSPORT]]
    there = space.within(space.levels[TRANSPORT], (_FILLED, top))
    there = space.both(there, space.within(high, (0, _MOST)))
    long = space.both(space.minus(space.true, short), there)
    asking = space.within(flags, (SYN, SYN))
    neither = space.minus(space.true, space.either(tcp, udp))
    either = space.either(space.both(tcp, asking), space.both(udp, long))
    return space.either(neither, either)


def special(realm: Realm, domain: str) -> list[Prefix]:
    """Return the targets that a domain sends nowhere: reserved ones, and its own.

    Its own are single addresses: a network that it keeps is one that it swallows.
    """
    found = [*NO_TARGET[realm.version], *LINK_ONLY[realm.version]]
    found += LOOPBACK4 if realm.version == IPV4 else LINK_LOCAL6
    routing = realm.world.places[domain].net.routing
    here = [r.prefix for r in routing.routes if r.table == LOCAL_TABLE]
    own = (p for p in here if p.prefixlen == p.max_prefixlen)
    return [*found, *(p for p in own if p.version == realm.version)]

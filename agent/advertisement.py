# SPDX-License-Identifier: GPL-2.0-or-later
"""What a router says to the clients on its link (RFC 4861, 4.2; RFC 8106, 5.1).

There is no prefix in it: nobody else is on the link, and no address is to be
made up.  The two flags send a client to DHCPv6 for the one address that it has.
"""

import struct

from agent.plan import ROUTER_MAC, Place

PERIOD = 600  # seconds between two of them that nobody asked for
LIFETIME = 3 * PERIOD  # seconds; RFC 4861, 6.2.1

_ADVERTISEMENT = 134
_HOPS = 64
_MANAGED, _OTHER = 0x80, 0x40
# type, code, checksum (the kernel's), hop limit, flags, lifetime, reachable and
# retransmission time (not ours to say)
_HEADER = struct.Struct("!BBHBBHII")
_SOURCE, _RESOLVERS = 1, 25  # options; a length counts 8 bytes
_RESOLVERS_HEADER = struct.Struct("!BBHI")


def advertisement(place: Place) -> bytes:
    """Return the message for the vif of ``place``, an ICMPv6 packet."""
    flags = _MANAGED | _OTHER
    header = _HEADER.pack(_ADVERTISEMENT, 0, 0, _HOPS, flags, LIFETIME, 0, 0)
    source = bytes((_SOURCE, 1)) + ROUTER_MAC
    addresses = b"".join(each.packed for each in place.resolvers6)
    length = 1 + len(addresses) // 8
    resolvers = _RESOLVERS_HEADER.pack(_RESOLVERS, length, 0, LIFETIME) + addresses
    return header + source + resolvers

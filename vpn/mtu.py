# SPDX-License-Identifier: GPL-2.0-or-later
"""How large a packet fits into the tunnel.

What the way to the server carries is asked of the kernel, which knows the MTU
of the uplink and what routers on the way said since (RFC 1191, RFC 8201).
"""

import socket
from ipaddress import IPv4Address, IPv6Address

from agent.exchange import FAMILIES
from rules.model import Address, family
from vpn.endpoints import Target

LEAST4 = 576  # bytes; every host takes that much (RFC 791)
LEAST6 = 1280  # IPv6 needs it on every link (RFC 8200, 5)
MOST = 65535
ETHERNET = 1500

_OUTER_IPV4, _OUTER_IPV6, _UDP, _TCP = 20, 40, 8, 20  # bytes of each header
_MTU = {4: (socket.IPPROTO_IP, 14), 6: (socket.IPPROTO_IPV6, 24)}  # IP_MTU, IPV6_MTU


def path_mtu(target: Target) -> int:
    """Return the bytes of a packet to ``target``; `ETHERNET` if nobody knows.

    Connecting a UDP socket sends nothing.  Never raises.
    """
    try:
        with socket.socket(FAMILIES[family(target.address)], socket.SOCK_DGRAM) as way:
            way.connect((str(target.address), target.port))
            level, option = _MTU[target.address.version]
            return int(way.getsockopt(level, option))
    except OSError:
        return ETHERNET


def outer(address: Address) -> int:
    """Return the bytes of the IP and UDP headers of packets to a server."""
    match address:
        case IPv4Address():
            return _OUTER_IPV4 + _UDP
        case IPv6Address():
            return _OUTER_IPV6 + _UDP


def tunnel_mtu(
    path: int, overhead: int, given: int | None = None, *, least: int = LEAST6
) -> int:
    """Return the MTU of the tunnel device, ``least`` .. `MOST` bytes.

    ``overhead`` is all that the tunnel adds to a packet.  ``given`` is the
    profile's word, which can only make it smaller.  Without IPv6 inside,
    ``least`` can be `LEAST4`.
    """
    return max(least, min(path - overhead, MOST, given or MOST))


def segment(mtu: int) -> int:
    """Return the TCP payload that fits a packet of ``mtu`` bytes, for IPv4.

    IPv6 has 20 bytes less.
    """
    return mtu - _OUTER_IPV4 - _TCP

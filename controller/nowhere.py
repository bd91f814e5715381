# SPDX-License-Identifier: GPL-2.0-or-later
"""Where no packet of a domain ever comes to, whatever its list says."""

from ipaddress import ip_network

from controller.addresses import DNS4, DNS6, INTERNAL4, INTERNAL6
from controller.domains import Domain, Domains
from rules.decide import DNS_PORT, TCP, UDP, Packet
from rules.model import Address, AddressRange

RESOLVERS: frozenset[Address] = frozenset((*DNS4, *DNS6))
_INTERNAL: tuple[AddressRange, ...] = (*INTERNAL4, *INTERNAL6)
_NOT_ROUTED = (
    *("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4"),
    *("255.255.255.255/32", "::/127", "fe80::/10", "ff00::/8"),
)
NEVER: tuple[AddressRange, ...] = (
    *_INTERNAL,
    *map(ip_network, _NOT_ROUTED),
)
"""Where nothing is sent on to, but for questions to the virtual resolvers."""
CARRIED = "it carries nothing but TCP and questions for names"


def unreachable(domains: Domains, netvm: Domain, packet: Packet) -> str | None:
    """Say why no client of ``netvm`` ever reaches a place, if that is so."""
    dst = packet.dst
    if dst in (netvm.ip4, netvm.ip6):
        return "a netvm serves its clients names and ping only"
    if dst in RESOLVERS:
        return None if _asks(packet) else "a virtual resolver answers on port 53 only"
    if any(dst in network for network in _INTERNAL):
        owner = next((f" ({d.name})" for d in domains if dst in (d.ip4, d.ip6)), "")
        return f"{dst} is an address of domains{owner}: they do not reach one another"
    if any(dst in network for network in NEVER):
        return f"{dst} is never forwarded"
    return None


def carries(netvm: Domain, packet: Packet) -> bool:
    """Whether what ``netvm`` does can be done with such a packet."""
    only_tcp = netvm.personality is not None and netvm.personality.only_tcp
    return not only_tcp or packet.proto == TCP or _asks(packet)


def _asks(packet: Packet) -> bool:
    """Whether it is for port 53; only the virtual resolvers answer there."""
    names = packet.dst in RESOLVERS and packet.port == DNS_PORT
    return names and packet.proto in (TCP, UDP)

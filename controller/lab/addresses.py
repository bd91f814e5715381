# SPDX-License-Identifier: GPL-2.0-or-later
"""Who has which address in the embedded internet (RFC 5737, RFC 3849).

=============  ======================  =======================
router         192.0.2.1, 203.0.113.1  2001:db8:1::1, …:113::1
NetVMs         192.0.2.2, …            2001:db8:1::2, …
neighbour      192.0.2.66              2001:db8:1::66
resolver       192.0.2.53              2001:db8:1::53
web, echo      198.51.100.80           2001:db8:80::80
the forbidden  198.51.100.81           2001:db8:80::81
intranet       10.200.0.10
remote hosts   203.0.113.N             2001:db8:113::N
=============  ======================  =======================
"""

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from ipaddress import ip_interface as interface

Address = IPv4Address | IPv6Address

WEB = (IPv4Address("198.51.100.80"), IPv6Address("2001:db8:80::80"))
FORBIDDEN = (IPv4Address("198.51.100.81"), IPv6Address("2001:db8:80::81"))
INTRANET = IPv4Address("10.200.0.10")
SERVERS = (*WEB, *FORBIDDEN, INTRANET)
RESOLVERS = (IPv4Address("192.0.2.53"), IPv6Address("2001:db8:1::53"))
ROUTER, NETVM, NEIGHBOUR = 1, 2, 66  # the last number of each address and MAC

NAMES: Mapping[str, Sequence[Address]] = {
    "example.com": WEB,
    "www.example.com": WEB,
    "forbidden.example.com": FORBIDDEN,
    "intranet.example.com": (INTRANET,),
    "v4only.example.com": WEB[:1],
    "v6only.example.com": WEB[1:],
    "rotating.example.com": (*WEB, *FORBIDDEN),
    "changing.example.com": WEB[:1],
}

# A link-local address of its own, because the kernel's is silent for a second.
_NEAR = "192.0.2.{}/24", "2001:db8:1::{}/64", "fe80::{}/64"
_REMOTE = "203.0.113.{}/24", "2001:db8:113::{}/64"


def near(host: int) -> list[IPv4Interface | IPv6Interface]:
    """Return what a host on the LAN of the NetVMs has."""
    return [interface(each.format(host)) for each in _NEAR]


def remote(host: int) -> tuple[Address, Address]:
    """Return the addresses of a host behind the router."""
    four, six = remote_interfaces(host)
    return four.ip, six.ip


def remote_interfaces(host: int) -> list[IPv4Interface | IPv6Interface]:
    """Return the same with their networks."""
    return [interface(each.format(host)) for each in _REMOTE]


def gateways(host: Sequence[IPv4Interface | IPv6Interface]) -> list[Address]:
    """Return the router as it is seen from the networks of an interface."""
    return [each.network[ROUTER] for each in host if not each.is_link_local]


def mac(host: int) -> str:
    """Return the MAC address of a host by its number, which is below 100."""
    return f"02:00:00:00:00:{host:02}"

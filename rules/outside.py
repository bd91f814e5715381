# SPDX-License-Identifier: GPL-2.0-or-later
"""Which addresses a server of the internet can have.

A false answer that names another would make the way to the "server" a way to a
host of the local network (TunnelCrack, CVE-2023-36671).  Pure.
"""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from rules.model import Address

# What no public server has (RFC 6890, RFC 5735).  Networks for documentation
# are not among them: nothing answers there, so nothing can be reached by them.
NOT_PUBLIC = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "224.0.0.0/3",
            "::/127",
            "fc00::/7",
            "fe80::/10",
            "fec0::/10",
            "ff00::/8",
        ),
    )
)
NAT64 = ip_network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address


def is_public(untrusted_address: Address) -> bool:
    """Whether an answer from outside can be this address."""
    address = embedded(untrusted_address)
    return not any(address in network for network in NOT_PUBLIC)


def embedded(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one stands for, or itself."""
    match address:
        case IPv6Address() if address.ipv4_mapped:
            return address.ipv4_mapped
        case IPv6Address() if address.sixtofour:
            return address.sixtofour
        case IPv6Address() if address in NAT64:
            return ip_address(int(address) & 0xFFFFFFFF)
        case IPv4Address() | IPv6Address():
            return address

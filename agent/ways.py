# SPDX-License-Identifier: GPL-2.0-or-later
"""What puts a way out into use, as requests in their order."""

from collections.abc import Collection, Iterator
from dataclasses import replace
from errno import ENODEV
from ipaddress import IPv4Interface, IPv6Interface, ip_interface, ip_network

from agent.netlink import Request
from agent.rtnetlink import (
    add_address,
    delete_address,
    replace_neighbour,
    replace_route,
    set_link,
)
from rules.facts import UPLINK_GROUP, Tunnel, Uplink
from rules.model import Address, family
from rules.routing import ANY, MAIN, Route

PEER_MAC = "fe:ff:ff:ff:ff:ff"  # of every vif (Xen's vif-common.sh)

Present = Collection[tuple[Address, int]]
"""The addresses that a link has, with their prefix lengths."""


def of_uplink(uplink: Uplink, present: Present, *, pinned: bool) -> Iterator[Request]:
    """Give an uplink its addresses and routes, group 1, and set it up.

    ``pinned``: its next hop is the vif of another domain.
    """
    known = uplink.gateways if pinned else ()
    on_link = [*uplink.networks, *map(ip_network, uplink.gateways)]
    yield set_link(uplink.index, group=UPLINK_GROUP)
    yield from _readdress(uplink.index, uplink.own, present)
    yield from (replace_neighbour(uplink.index, a, PEER_MAC) for a in known)
    yield set_link(uplink.index, up=True)
    yield from (replace_route(Route(MAIN, p, uplink.index)) for p in on_link)
    for gateway in uplink.gateways:
        prefix = ANY[family(gateway)]
        yield replace_route(Route(MAIN, prefix, uplink.index, gateway))


def of_tunnel(
    tunnel: Tunnel, present: Present, resolvers: Collection[Address]
) -> Iterator[Request]:
    """Give a tunnel its addresses, set it up, and reach ``resolvers`` by it."""
    yield set_link(tunnel.index, mtu=tunnel.mtu)
    yield from _readdress(tunnel.index, tunnel.own, present)
    yield set_link(tunnel.index, up=True)
    families = {family(address) for address in tunnel.own}
    for address in resolvers:
        if family(address) in families:
            yield replace_route(Route(MAIN, ip_network(address), tunnel.index))


def of_rest(index: int, present: Present) -> Iterator[Request]:
    """Set a link down, and take its addresses, which are answered for even so."""
    yield replace(set_link(index, up=False), fine=frozenset({ENODEV}))
    for address, bits in present:
        yield delete_address(index, ip_interface((address.packed, bits)))


def _readdress(
    index: int, own: Collection[Address], present: Present
) -> Iterator[Request]:
    wanted: set[IPv4Interface | IPv6Interface] = {ip_interface(a) for a in own}
    # First, for with a link's last address go its routes, of which no event tells.
    for interface in wanted:
        yield add_address(index, interface)
    for address, bits in present:
        found = ip_interface((address.packed, bits))
        if found not in wanted and not address.is_link_local:
            yield delete_address(index, found)

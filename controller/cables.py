# SPDX-License-Identifier: GPL-2.0-or-later
"""Virtual cables between namespaces, as seen from the namespace we are in.

`agent.netlink.NetlinkError`, an OSError, says what the kernel refused.
"""

import socket
from collections.abc import Iterable
from ipaddress import ip_interface, ip_network
from pathlib import Path

from agent.netlink import ROUTE, Netlink, Request
from agent.rtnetlink import (
    End,
    add_address,
    add_veth,
    delete_link,
    replace_neighbour,
    replace_route,
    set_link,
)
from controller import namespaces
from controller.ports import Pair
from rules.model import family
from rules.routing import ANY, MAIN, Route

HERE = Path(namespaces.MINE)


def exists(name: str) -> bool:
    """Whether this namespace has an interface of that name."""
    return any(name == found for _, found in socket.if_nameindex())


def lay(near: str, *, mac: str, far: str, far_mac: str, net: Path) -> None:
    """Have a pair of which the ``far`` end is in another namespace.

    A new one has both ends down.  If only one end is there, it is what a
    namespace that ended leaves behind for a moment, or another pair.
    """
    with namespaces.inside(net):
        complete = exists(far)
    if complete and exists(near):
        return
    remove(near)
    with namespaces.inside(net):
        remove(far)
    with HERE.open() as here, net.open() as there:
        one = End(near, here.fileno(), mac)
        other = End(far, there.fileno(), far_mac)
        _do(add_veth(one, other))


def remove(name: str) -> None:
    """Remove an interface and its peer; nothing happens if it is not there."""
    _do(
        *(delete_link(index) for index, found in socket.if_nameindex() if found == name)
    )


def move(name: str, net: Path) -> None:
    """Move an interface to another namespace, where it is down."""
    with net.open() as there:
        _do(set_link(socket.if_nametoindex(name), namespace=there.fileno()))


def up(name: str, *, group: int = 0) -> None:
    """Set an interface up, in a group of interfaces."""
    _do(set_link(socket.if_nametoindex(name), up=True, group=group))


def connect(name: str, pairs: Iterable[Pair], mac: str, *, by_default: bool) -> None:
    """Reach the other end, whose MAC address is ``mac``, without a question.

    Each pair is one address without a network, and the other end's as a host
    route; with ``by_default`` it is the way to everything else too.  All of it
    may be so already.
    """
    index = socket.if_nametoindex(name)
    for pair in pairs:
        _do(
            add_address(index, ip_interface(pair.own)),
            replace_neighbour(index, pair.gateway, mac),
            replace_route(Route(MAIN, ip_network(pair.gateway), index)),
        )
        if by_default:
            route = Route(MAIN, ANY[family(pair.own)], index, pair.gateway)
            _do(replace_route(route))


def _do(*requests: Request) -> None:
    with Netlink(ROUTE) as kernel:
        kernel.do(*requests)

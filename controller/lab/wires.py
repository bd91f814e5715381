# SPDX-License-Identifier: GPL-2.0-or-later
"""The links of the embedded internet, in the namespace of the calling thread.

Each call is done on return, or raises `agent.netlink.NetlinkError`.
"""

import socket
import struct
from collections.abc import Iterable
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path

from agent.netlink import CREATE, EXCLUSIVE, ROUTE, Netlink, Request, attribute
from agent.rtnetlink import (
    NEW_LINK,
    End,
    add_address,
    add_veth,
    delete_link,
    replace_route,
    set_link,
)
from controller.cables import HERE
from rules.model import Address, family
from rules.routing import ANY, MAIN, Route

Interface = IPv4Interface | IPv6Interface

LOOPBACK = 1  # its index, in every namespace
LINK = struct.Struct("=BxHiII")  # struct ifinfmsg: family, type, index, flags, change
NAME, MASTER, INFO, INFO_KIND = 3, 10, 18, 1  # linux/if_link.h: IFLA_…


def bridge(name: str) -> None:
    """Make a bridge, which is down and has no port yet."""
    info = attribute(INFO, attribute(INFO_KIND, b"bridge"))
    body = LINK.pack(0, 0, 0, 0, 0) + attribute(NAME, name.encode() + b"\0") + info
    _do(Request(f"add bridge {name}", NEW_LINK, body, CREATE | EXCLUSIVE))


def plug(port: str, lan: str, peer: str, mac: str, net: Path) -> None:
    """Make a cable from a new port of the bridge ``lan`` to ``peer`` in ``net``.

    The port is up; the peer is down and has the MAC address.
    """
    with HERE.open() as here, net.open() as there:
        near, far = End(port, here.fileno()), End(peer, there.fileno(), mac)
        _do(add_veth(near, far))
    index = socket.if_nametoindex(port)
    master = struct.pack("=I", socket.if_nametoindex(lan))
    body = LINK.pack(0, 0, index, 0, 0) + attribute(MASTER, master)
    _do(Request(f"{port} into {lan}", NEW_LINK, body), set_link(index, up=True))


def configure(
    name: str,
    own: Iterable[Interface],
    gateways: Iterable[Address] = (),
    mac: str | None = None,
) -> None:
    """Give an interface its addresses, set it up, and route by the gateways."""
    index = socket.if_nametoindex(name)
    _do(
        *(add_address(index, each) for each in own),
        set_link(index, up=True, mac=mac),
        *(
            replace_route(Route(MAIN, ANY[family(each)], index, each))
            for each in gateways
        ),
    )


def delete(*names: str) -> None:
    """Delete those of the interfaces that are there, and the cables they end.

    The loopback stays.
    """
    found = [index for index, name in socket.if_nameindex() if name in names]
    _do(*(delete_link(index) for index in found if index != LOOPBACK))


def _do(*requests: Request) -> None:
    with Netlink(ROUTE) as kernel:
        kernel.do(*requests)

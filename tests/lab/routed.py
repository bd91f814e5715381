# SPDX-License-Identifier: GPL-2.0-or-later
"""A client behind a plain router, and the lab's internet: no rule anywhere.

Where the tools of this folder prove that they see what there is to see.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from controller import namespaces
from controller.platforms.lab import Internet

CLIENT4, CLIENT6 = IPv4Address("10.137.0.5"), IPv6Address("fd09:24ef:4179::a89:5")
GATEWAY4, GATEWAY6 = IPv4Address("10.137.0.6"), IPv6Address("fd09:24ef:4179::a89:6")
CLIENT_MAC, VIF_MAC = "00:16:3e:5e:6c:00", "fe:ff:ff:ff:ff:ff"

ROUTER = f"""
link add vif1.0 address {VIF_MAC} type veth peer name eth0 netns {{client}}
address add {GATEWAY4}/32 dev vif1.0
address add {GATEWAY6}/128 dev vif1.0 nodad
address add fe80::6/64 dev vif1.0 nodad
link set vif1.0 up
route add {CLIENT4} dev vif1.0
route add {CLIENT6} dev vif1.0
"""
CLIENT = f"""
link set eth0 address {CLIENT_MAC}
address add {CLIENT4}/32 dev eth0
address add {CLIENT6}/128 dev eth0 nodad
link set eth0 up
route add default via {GATEWAY4} dev eth0 onlink
route add default via {GATEWAY6} dev eth0 onlink
"""
INTERNET = f"""
route add {CLIENT4} via 192.0.2.2
route add {CLIENT6} via 2001:db8:1::2
"""


@dataclass(frozen=True, slots=True)
class Routed:
    """The client's eth0 is at the router's vif1.0, the router's eth0 at ``port``."""

    client: Path
    router: Path
    internet: Internet
    port: str


def ip(net: Path, batch: str) -> None:
    """Run lines of ``ip`` in a namespace."""
    with namespaces.inside(net):
        subprocess.run(["ip", "-batch", "-"], input=batch, text=True, check=True)


def forward(net: Path) -> None:
    """Make a namespace a router of both families."""
    with namespaces.inside(net):
        for family in ("ipv4", "ipv6"):
            switch = Path(f"/proc/sys/net/{family}/conf/all/forwarding")
            switch.write_text("1")


@contextmanager
def routed(folder: Path) -> Iterator[Routed]:
    """Make all of it, and remove it with whatever runs in it."""
    client, router, internet = folder / "client", folder / "router", Internet(folder)
    try:
        internet.up()
        for net in (client, router):
            namespaces.create(net)
        forward(router)
        port = internet.attach(router)
        ip(router, ROUTER.format(client=client))
        ip(client, CLIENT)
        ip(internet.net, INTERNET)
        yield Routed(client, router, internet, port)
    finally:
        internet.down()
        for net in (client, router):
            if net.exists():
                namespaces.kill_all(net)
                namespaces.remove(net)

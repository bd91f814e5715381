# SPDX-License-Identifier: GPL-2.0-or-later
"""What the platform configures inside a domain: sysctls, and eth0 of a client.

The addresses are set as in Qubes (core-agent ``network/setup-ip``): one address
without a network, the gateway by a route and a MAC address that are fixed.  So
a client has nobody on its link to ask for, and nothing to ask.
"""

import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

from controller import cables, datagrams, namespaces
from controller.ports import VIF_MAC, Pair

ETH0 = "eth0"
UPLINKS = 1  # the interface group, as of Qubes
V6 = 6

# A new namespace takes its IPv4 settings from the host (devinet_init_net), and
# one that forwards must not do so before its agent has loaded the guard.
OF_A_DOMAIN = {
    "ipv4/ip_forward": "0",
    "ipv4/ping_group_range": "0 2147483647",  # ping without any capability
    "ipv4/conf/all/accept_redirects": "0",
    "ipv4/conf/default/accept_redirects": "0",
}
# Nothing is sent before somebody has something to say (ip-sysctl.rst).
OF_AN_IPV6_CLIENT = {
    "disable_ipv6": "0",
    "accept_ra": "0",
    "accept_redirects": "0",
    "addr_gen_mode": "1",  # no link-local address
    "autoconf": "0",
    "router_solicitations": "0",
}
OF_AN_IPV4_CLIENT = {"disable_ipv6": "1"}


def prepare(net: Path) -> None:
    """Make a new namespace fit to be a domain: loopback up, nothing forwarded."""
    with namespaces.inside(net):
        cables.up("lo")
        sysctls("", OF_A_DOMAIN)


def configure(net: Path, pairs: Iterable[Pair]) -> None:
    """Configure and set up eth0 of the namespace; all of it may be so already."""
    known = tuple(pairs)
    has_ipv6 = any(pair.own.version == V6 for pair in known)
    with namespaces.inside(net):
        settings = OF_AN_IPV6_CLIENT if has_ipv6 else OF_AN_IPV4_CLIENT
        sysctls(f"ipv6/conf/{ETH0}/", settings)
        datagrams.send_alone(socket.if_nametoindex(ETH0))
        cables.up(ETH0, group=UPLINKS)
        cables.connect(ETH0, known, VIF_MAC, by_default=True)


def sysctls(below: str, values: Mapping[str, str]) -> None:
    """Write ``net`` sysctls of the namespace we are in, as far as it has them."""
    for name, value in values.items():
        path = Path("/proc/sys/net", below + name)
        if path.exists():
            path.write_text(value)

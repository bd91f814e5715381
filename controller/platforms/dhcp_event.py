# SPDX-License-Identifier: GPL-2.0-or-later
"""What a DHCP lease means for the card: its address, its route, its resolvers.

udhcpc runs this at each event, with the lease in the environment (its words come
from a server that nobody vouches for).  The agent of the NetVM sees what changed.
"""

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface

from agent.links import LinkTable
from agent.netlink import ROUTE, Netlink
from agent.rtnetlink import (
    add_address,
    delete_address,
    delete_route,
    replace_route,
    set_link,
)
from controller.platforms.netns import RESOLV_CONF
from rules.model import Family
from rules.routing import ANY, MAIN, Route

MOST = 3  # resolvers, as MAXNS of resolv.conf(5)


@dataclass(frozen=True, slots=True)
class Lease:
    """An address with its network, the next hop and the resolvers, best first."""

    own: IPv4Interface
    router: IPv4Address | None
    resolvers: tuple[IPv4Address, ...]


class LeaseError(ValueError):
    """A lease that cannot be used, and why."""


def lease(untrusted: Mapping[str, str]) -> Lease:
    """Read the environment of a ``bound`` or ``renew``; `LeaseError` says why not."""
    text = f"{untrusted.get('ip', '')}/{untrusted.get('subnet', '255.255.255.255')}"
    try:
        own = IPv4Interface(text)
    except ValueError as error:
        raise LeaseError(f"{text[:60]!r}: {error}") from None
    if own.ip.is_multicast or own.ip.is_loopback or own.ip.is_unspecified:
        raise LeaseError(f"{own.ip} is not the address of a host")
    routers = _addresses(untrusted.get("router", ""))
    resolvers = _addresses(untrusted.get("dns", ""))[:MOST]
    return Lease(own, routers[0] if routers else None, resolvers)


def main(words: Sequence[str]) -> int:
    """Carry out an event of udhcpc; return its exit status."""
    untrusted: Mapping[str, str] = os.environ
    interface = untrusted.get("interface", "")
    try:
        match words:
            case ["deconfig"]:
                configure(interface, None)
            case ["bound" | "renew"]:
                configure(interface, lease(untrusted))
            case _:
                pass  # leasefail and nak change nothing
    except (LeaseError, OSError) as error:
        sys.stderr.write(f"{interface}: {error}\n")
        return 1
    return 0


def configure(interface: str, wanted: Lease | None) -> None:
    """Give the interface the lease and no other IPv4 address; set it up."""
    index = socket.if_nametoindex(interface)
    links = LinkTable()
    present = {
        IPv4Interface(f"{address}/{bits}")
        for address, bits in links.addresses(index)
        if isinstance(address, IPv4Address)
    }
    links.close()
    with Netlink(ROUTE) as kernel:
        kernel.do(set_link(index, up=True))
        if wanted is not None:
            kernel.do(add_address(index, wanted.own))
        own = set() if wanted is None else {wanted.own}
        kernel.do(*(delete_address(index, each) for each in present - own))
        router = None if wanted is None else wanted.router
        way = Route(MAIN, ANY[Family.IPV4], index, router)
        kernel.do(delete_route(way) if router is None else replace_route(way))
    if wanted is not None:
        fresh = RESOLV_CONF.with_suffix(".new")
        fresh.write_text("".join(f"nameserver {a}\n" for a in wanted.resolvers))
        fresh.replace(RESOLV_CONF)


def _addresses(untrusted_text: str) -> tuple[IPv4Address, ...]:
    found = []
    for word in untrusted_text.split():
        try:
            found.append(IPv4Address(word))
        except ValueError:
            continue  # the others may do
    return tuple(found)

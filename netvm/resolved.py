# SPDX-License-Identifier: GPL-2.0-or-later
"""The servers systemd-resolved uses (org.freedesktop.resolve1(5))."""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from netvm.bus import Property
from netvm.resolvers import Nameservers, gathered, why_unusable
from rules.model import Address

# DNSEx is DNS with the port: a server on another port than 53 is of no use to
# clients.  Since systemd 246.
SERVERS = Property(
    service="org.freedesktop.resolve1",
    path="/org/freedesktop/resolve1",
    interface="org.freedesktop.resolve1.Manager",
    name="DNSEx",
)

# Written anew at each change of the servers, also when a link is gone, which
# no signal tells (systemd 252).
CHANGES = Path("/run/systemd/resolve/resolv.conf")

DNS_PORTS = (0, 53)  # 0: the usual one
GLOBAL = 0


@dataclass(frozen=True, slots=True)
class _Server:
    link: int
    address: Address


def parse(untrusted_value: object | None) -> Nameservers | None:
    """Read ``DNSEx`` a(iiayqs): interface index, family, address, port, name.

    `None` (no such service) stays `None`.  If a usable global server (index 0)
    is there, the servers of links are not used, as in qubes-setup-dnat-to-ns;
    otherwise they are taken in the order of their links' indexes.
    """
    if untrusted_value is None:
        return None
    if not isinstance(untrusted_value, list):
        return Nameservers(problems=("DNSEx is not a list",))
    entries = list(_entries(untrusted_value))
    servers = [entry for entry in entries if isinstance(entry, _Server)]
    chosen = [
        server
        for server in servers
        if server.link == GLOBAL and why_unusable(server.address) is None
    ] or sorted(servers, key=lambda server: server.link)
    return gathered(
        [
            *(server.address for server in chosen),
            *(entry for entry in entries if isinstance(entry, str)),
        ]
    )


def _entries(untrusted_list: list[object]) -> Iterator[_Server | str]:
    for untrusted_entry in untrusted_list:
        match untrusted_entry:
            case (int(link), int(), bytes(untrusted_address), int(port), str()):
                try:
                    address = ip_address(bytes(untrusted_address))
                except ValueError:
                    yield f"an address of {len(untrusted_address)} bytes"
                    continue
                if port in DNS_PORTS:
                    yield _Server(link, address)
                else:
                    yield f"{address} listens on port {port}, clients use 53"
            case _:
                yield "an entry is not a server"

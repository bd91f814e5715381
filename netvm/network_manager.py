# SPDX-License-Identifier: GPL-2.0-or-later
"""The servers NetworkManager uses (its DnsManager object on the bus)."""

from collections.abc import Iterator
from dataclasses import dataclass

from netvm.bus import Property
from netvm.resolvers import Nameservers, gathered, read_server
from rules.model import Address

SERVERS = Property(
    service="org.freedesktop.NetworkManager",
    path="/org/freedesktop/NetworkManager/DnsManager",
    interface="org.freedesktop.NetworkManager.DnsManager",
    name="Configuration",
)


@dataclass(frozen=True, slots=True)
class _Connection:
    priority: int
    untrusted_servers: tuple[object, ...]


def parse(untrusted_value: object | None) -> Nameservers | None:
    """Read ``Configuration`` aa{sv}, one dictionary for each connection.

    `None` (no such service) stays `None`.  A lower ``priority`` goes first; a
    negative one shuts out every higher one (nm-settings(5), dns-priority), so
    that a VPN can keep DNS to itself.
    """
    if untrusted_value is None:
        return None
    if not isinstance(untrusted_value, list):
        return Nameservers(problems=("Configuration is not a list",))
    entries = list(_entries(untrusted_value))
    connections = sorted(
        (entry for entry in entries if isinstance(entry, _Connection)),
        key=lambda connection: connection.priority,
    )
    if connections and (best := connections[0].priority) < 0:
        connections = [c for c in connections if c.priority == best]
    return gathered(
        [
            *(server for c in connections for server in _servers(c)),
            *(entry for entry in entries if isinstance(entry, str)),
        ]
    )


def _entries(untrusted_list: list[object]) -> Iterator[_Connection | str]:
    for untrusted_entry in untrusted_list:
        match untrusted_entry:
            case {"nameservers": list(untrusted_servers), "priority": int(priority)}:
                yield _Connection(priority, tuple(untrusted_servers))
            case _:
                yield "an entry is not a connection"


def _servers(connection: _Connection) -> Iterator[Address | str]:
    for untrusted_server in connection.untrusted_servers:
        if isinstance(untrusted_server, str):
            yield read_server(untrusted_server)
        else:
            yield "a server is not text"

# SPDX-License-Identifier: GPL-2.0-or-later
"""How this machine itself reaches the network: default routes and resolvers.

Routes are those of table main in the namespace we are in.  What a VPN client
sends into a table of its own does not count, and so is not shared.
"""

from ipaddress import ip_address
from pathlib import Path

from rules.model import Address, Family

ROUTES4 = Path("/proc/thread-self/net/route")  # net/ipv4/fib_trie.c
ROUTES6 = Path("/proc/thread-self/net/ipv6_route")  # net/ipv6/route.c
RESOLV = Path("/etc/resolv.conf")
BEHIND_RESOLVED = Path("/run/systemd/resolve/resolv.conf")


def default_interfaces(version: Family) -> frozenset[str]:
    """Return the interfaces of the default routes of one IP version."""
    match version:
        case Family.IPV4:
            found = (x[0] for x in _table(ROUTES4) if x[1] == x[7] == "00000000")
            return frozenset(found) - {"lo"}
        case Family.IPV6:
            found = (x[9] for x in _table(ROUTES6) if x[:2] == ["0" * 32, "00"])
            return frozenset(found) - {"lo"}


def _table(path: Path) -> list[list[str]]:
    text = path.read_text() if path.exists() else ""
    return [line.split() for line in text.splitlines()]


def resolvers() -> tuple[Address, ...]:
    """Return the resolvers of this machine that are not on this machine.

    Behind the stub of systemd-resolved stand those it asks itself.  Empty if
    there are only local ones; link-local ones mean nothing elsewhere.
    """
    for path in (RESOLV, BEHIND_RESOLVED):
        if path.exists() and (found := remote(path.read_text())):
            return found
    return ()


def remote(resolv_conf: str) -> tuple[Address, ...]:
    """Return the nameservers of a resolv.conf(5) that other machines could ask."""
    lines = (line.split() for line in resolv_conf.splitlines())
    words = (x[1] for x in lines if x[:1] == ["nameserver"] and len(x) > 1)
    found = (ip_address(word) for word in words if "%" not in word and _is_one(word))
    return tuple(x for x in found if not (x.is_loopback or x.is_link_local))


def _is_one(word: str) -> bool:
    try:
        ip_address(word)
    except ValueError:
        return False
    return True

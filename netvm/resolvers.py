# SPDX-License-Identifier: GPL-2.0-or-later
"""Which resolvers the clients' DNS goes to.

Clients ask the virtual servers of Qubes OS (``10.139.1.1``, ``10.139.1.2`` and
their IPv6 counterparts); the kernel rewrites those to real ones.  Three sources
know the real ones; here one is chosen.  Pure.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address

from rules.model import Address
from rules.virtual_dns import VIRTUAL4, VIRTUAL6, paired

CLASS_E = IPv4Network("240.0.0.0/4")  # with the broadcast address

SHOWN = 60  # characters of a foreign text that a problem repeats


@dataclass(frozen=True, slots=True)
class Nameservers:
    """What one source says: its servers, best first, and what is wrong with it.

    A source that is not there (no such service) is `None` instead.
    """

    servers: tuple[Address, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Resolvers:
    """The chosen servers, best first, and the name of the source they are from.

    ``source`` is ``dom0``, ``systemd-resolved``, ``NetworkManager``,
    ``resolv.conf`` or ``none``.  ``problems`` are one line each, of every source
    that was asked.
    """

    v4: tuple[IPv4Address, ...]
    v6: tuple[IPv6Address, ...]
    source: str
    problems: tuple[str, ...] = ()


def choose(
    resolved: Nameservers | None,
    network_manager: Nameservers | None,
    resolv_conf: Nameservers,
) -> Resolvers:
    """Take the first source that has a usable server; both families from it."""
    problems: list[str] = []
    for source, said in (
        ("systemd-resolved", resolved),
        ("NetworkManager", network_manager),
        ("resolv.conf", resolv_conf),
    ):
        if said is None:
            continue
        problems += [f"{source}: {problem}" for problem in said.problems]
        verdicts = {server: why_unusable(server) for server in said.servers}
        problems += [f"{source}: {s}: {why}" for s, why in verdicts.items() if why]
        usable = [server for server, why in verdicts.items() if why is None]
        if usable:
            return by_family(usable, source, problems)
    return by_family((), "none", problems)


def by_family(
    servers: Iterable[Address], source: str, problems: Iterable[str] = ()
) -> Resolvers:
    """Part the servers by family, each in order."""
    servers = tuple(servers)
    return Resolvers(
        tuple(server for server in servers if isinstance(server, IPv4Address)),
        tuple(server for server in servers if isinstance(server, IPv6Address)),
        source,
        tuple(problems),
    )


def virtual_map(resolvers: Resolvers) -> Mapping[Address, Address]:
    """Return virtual server -> real server; none for a family without servers.

    With one real server both virtual ones lead to it; from the third on, real
    servers stay unused (as qubes-setup-dnat-to-ns does).
    """
    return {
        **paired(VIRTUAL4, resolvers.v4),
        **paired(VIRTUAL6, resolvers.v6),
    }


def why_unusable(server: Address) -> str | None:
    """Say why a client's packet cannot be rewritten to go there, if so.

    A link-local IPv6 address is unusable because a rewrite cannot carry the
    interface it belongs to.
    """
    if server in VIRTUAL4 or server in VIRTUAL6:
        return "is a virtual server, it would be rewritten to itself"
    if server.is_loopback:
        return "is a loopback address, clients cannot reach it"
    if server.is_unspecified or server.is_multicast or server in CLASS_E:
        return "is not the address of one host"
    if isinstance(server, IPv6Address) and server.is_link_local:
        return "is link-local, it would need an interface"
    if isinstance(server, IPv6Address) and server.ipv4_mapped:
        return "is an IPv4 address in IPv6 clothes"
    return None


def read_server(untrusted_text: str) -> Address | str:
    """Read one address as text; what comes back as `str` is the problem."""
    try:
        server = ip_address(untrusted_text)
    except ValueError:
        return f"{untrusted_text[:SHOWN]!r} is not an address"
    if isinstance(server, IPv6Address) and server.scope_id is not None:
        return f"{untrusted_text[:SHOWN]!r} is bound to an interface"
    return server


def gathered(entries: Iterable[Address | str]) -> Nameservers:
    """Part servers from problems (`str`), each kept once and in order."""
    once = dict.fromkeys(entries)
    return Nameservers(
        tuple(entry for entry in once if not isinstance(entry, str)),
        tuple(entry for entry in once if isinstance(entry, str)),
    )

# SPDX-License-Identifier: GPL-2.0-or-later
"""What a WireGuard profile adds to the facts."""

from collections.abc import Mapping
from dataclasses import replace

from rules.facts import Carried, Carrier, Facts, Tunnel
from rules.model import Address, Family, family
from rules.routing import ANY
from rules.virtual_dns import VIRTUAL4, VIRTUAL6, paired
from vpn.endpoints import UDP, Target, why_refused
from vpn.mtu import ETHERNET, LEAST4, LEAST6, outer, path_mtu, tunnel_mtu
from vpn.surroundings import Surroundings
from vpn.wireguard_profile import Profile

# Bytes (WireGuard whitepaper, 5.4.6).
OVERHEAD = 32  # header and tag
PADDED = 16  # packets are filled up to a multiple of it
OUTER6 = 48  # IPv6 and UDP, the most there is outside


def with_tunnel(
    facts: Facts,
    profile: Profile,
    link: tuple[str, int] | None,
    mtu: int,
    carried: frozenset[Carried],
) -> Facts:
    """Return the facts of a domain whose clients leave by the device ``link``."""
    own = frozenset(interface.ip for interface in profile.addresses)
    networks = frozenset(ANY[family(address)] for address in own)
    return replace(
        facts,
        carried=carried,
        tunnel=Tunnel(*link, own, networks, mtu) if link else None,
        dns=_dns(profile.dns),
        resolvers=frozenset(profile.dns),
    )


def way_to(target: Target, carrier: Carrier) -> Carried:
    """Return what the uplinks must carry for one server, and nothing else."""
    return Carried(carrier, UDP, (target.address, target.port))


def fitting(profile: Profile, target: Target | None) -> int:
    """Return the bytes of a packet that fits through the tunnel to a server."""
    families = {family(interface.ip) for interface in profile.addresses}
    least = LEAST6 if Family.IPV6 in families else LEAST4
    path = ETHERNET if target is None else path_mtu(target)
    overhead = OVERHEAD + (outer(target.address) if target else OUTER6)
    # The server fills packets up, by its own MTU, which may be larger than ours.
    path -= (path - overhead) % PADDED
    return tunnel_mtu(path, overhead, profile.mtu, least=least)


def clash(profile: Profile, around: Surroundings) -> str:
    """Say which address of the profile is taken on this machine, if one is."""
    for interface in profile.addresses:
        if reason := why_refused(
            interface.ip, around.own, around.clients, written=True
        ):
            return f"Address {interface.ip} {reason}"
    for address in profile.dns:
        if reason := why_refused(address, around.own, around.clients, written=True):
            return f"DNS {address} {reason}"
    return ""


def why_not(
    profile: Profile, target: Target, around: Surroundings, *, written: bool
) -> str:
    """Say why a server cannot be at ``target``, if so."""
    own = (interface.ip for interface in profile.addresses)
    if target.address in {*own, *profile.dns}:
        return f"{target.address} is an Address or DNS of the profile, in the tunnel"
    version = family(target.address)
    if version not in around.families:
        missing = "IPv4" if version is Family.IPV4 else "IPv6"
        return f"the uplink has no {missing}"
    refused = why_refused(target.address, around.own, around.clients, written=written)
    return f"{target.address} {refused}" if refused else ""


def where(target: Target) -> str:
    """Return an address and port for people."""
    match family(target.address):
        case Family.IPV4:
            return f"{target.address}:{target.port}"
        case Family.IPV6:
            return f"[{target.address}]:{target.port}"


def _dns(resolvers: tuple[Address, ...]) -> Mapping[Address, Address]:
    pairs: dict[Address, Address] = {}
    for virtual in (VIRTUAL4, VIRTUAL6):
        wanted = family(virtual[0])
        pairs |= paired(virtual, [a for a in resolvers if family(a) is wanted])
    return pairs

# SPDX-License-Identifier: GPL-2.0-or-later
"""From what a server pushed to the tunnel that the agent sets up.  Pure."""

from dataclasses import replace
from ipaddress import ip_network

from rules.facts import Carried, Facts, Tunnel
from rules.model import Address, Family, family
from rules.routing import ANY
from rules.virtual_dns import VIRTUAL4, VIRTUAL6, paired
from vpn.endpoints import UDP, Target
from vpn.mtu import LEAST4, LEAST6, MOST, outer, tunnel_mtu
from vpn.openvpn_profile import Profile
from vpn.openvpn_pushed import Pushed

# Bytes that a packet of the data channel adds to what it carries: opcode and
# peer, number, tag; in CBC also an IV, the padding and a hash of up to 64
# (OpenVPN, doc/doxygen/doc_protocol_overview.h).
_AEAD, _OTHER = 28, 104
_FRAMING = {"comp-lzo": 1, "compress": 1, "fragment": 4}


def tunnel_of(
    device: tuple[str, int], pushed: Pushed, path: int, overhead: int
) -> Tunnel:
    """Return a device, its name and index, as the way out of clients.

    ``path`` are the bytes that a packet to the server has `room` for, of which
    the daemon takes ``overhead``.
    """
    families = {family(address) for address in pushed.own}
    least = LEAST6 if Family.IPV6 in families else LEAST4
    mtu = tunnel_mtu(path, overhead, pushed.mtu, least=least)
    behind = frozenset(ANY[version] for version in families)
    return Tunnel(*device, pushed.own, behind, mtu)


def overhead_of(profile: Profile, cipher: str) -> int:
    """Return the most bytes that the daemon adds to a packet of the tunnel."""
    aead = cipher.endswith("-GCM") or cipher == "CHACHA20-POLY1305"
    names = {words[0] for words in profile.options}
    framing = sum(size for name, size in _FRAMING.items() if name in names)
    return (_AEAD if aead else _OTHER) + framing


def room(target: Target, path: int) -> int:
    """Return the bytes of payload that a packet to the server has.

    ``path`` is the MTU of the way to it.  A stream has as many as are asked for.
    """
    return path - outer(target.address) if target.proto == UDP else MOST


def with_tunnel(
    facts: Facts,
    carried: frozenset[Carried],
    tunnel: Tunnel | None,
    resolvers: tuple[Address, ...],
) -> Facts:
    """Return the facts of a domain whose clients leave by ``tunnel``, if by any."""
    dns: dict[Address, Address] = {}
    for virtual in (VIRTUAL4, VIRTUAL6):
        wanted = family(virtual[0])
        dns |= paired(virtual, [a for a in resolvers if family(a) is wanted])
    return replace(
        facts,
        carried=carried,
        tunnel=tunnel,
        dns=dns,
        resolvers=frozenset(resolvers),
    )


def resolvers_of(pushed: Pushed, facts: Facts, target: Target) -> tuple[Address, ...]:
    """Return the pushed resolvers that are reached by the tunnel alone.

    Not those that are this domain, the server, at the uplink or asked over it, or of
    another domain: a provider could name them to have questions go outside, or nowhere.
    """
    near = {target.address, *facts.here, *facts.connected, *facts.resolvers}
    for uplink in facts.uplinks:
        near |= {*uplink.own, *uplink.gateways}
    networks = [network for uplink in facts.uplinks for network in uplink.networks]
    networks += map(ip_network, facts.internal)
    return tuple(
        address
        for address in pushed.resolvers
        if address not in near and not any(address in net for net in networks)
    )

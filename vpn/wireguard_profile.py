# SPDX-License-Identifier: GPL-2.0-or-later
"""The profile of a WireGuard provider, as values."""

import binascii
import re
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv6Address,
    IPv6Interface,
    ip_address,
    ip_interface,
    ip_network,
)

from rules.model import MAX_PORT, Address, AddressRange, Family, family
from rules.virtual_dns import VIRTUAL4, VIRTUAL6
from vpn.endpoints import NO_HOST, Endpoint, EndpointError
from vpn.wireguard_file import Block, ProfileError, Section, Value, sections

Interface = IPv4Interface | IPv6Interface

KEY_BYTES = 32
KEY = "a key of 44 characters in base64, as `wg genkey` prints it"
LEAST_MTU = {Family.IPV4: 576, Family.IPV6: 1280}  # bytes (RFC 791, RFC 8200)
MOST_MTU = 65535

_HOST_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:\s]+)):([0-9]{1,5})")
_NUMBER = re.compile(r"[0-9]{1,5}")
_DOMAIN = re.compile(r"[A-Za-z0-9_.~-]{1,253}")


@dataclass(frozen=True, slots=True)
class Key:
    """A key of Curve25519, or a preshared one: 32 bytes that are never shown."""

    value: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Peer:
    """A server.  ``keepalive`` is in seconds, 0: none."""

    public: Key
    endpoint: Endpoint
    allowed: tuple[AddressRange, ...]
    preshared: Key | None = None
    keepalive: int = 0


@dataclass(frozen=True, slots=True)
class Profile:
    """A tunnel; each of ``peers`` can be the other end of it.

    ``mtu`` is in bytes, None: what fits.  ``port`` is the local UDP port, 0: any.
    """

    private: Key
    addresses: tuple[Interface, ...]
    peers: tuple[Peer, ...]
    dns: tuple[Address, ...] = ()
    mtu: int | None = None
    port: int = 0


def parse(untrusted_profile: bytes, name: str) -> Profile:
    """Read a profile; ``name`` is what messages call the file.

    Raises `ProfileError` for the first thing that is wrong.
    """
    blocks = sections(untrusted_profile, name)
    interfaces = [b for b in blocks if b.section is Section.INTERFACE]
    peers = [b for b in blocks if b.section is Section.PEER]
    if len(interfaces) != 1:
        where = interfaces[1].where if interfaces else f"{name}:1"
        raise ProfileError(f"{where}: expected one section [Interface]")
    if not peers:
        raise ProfileError(f"{interfaces[0].where}: expected a section [Peer] too")
    return _profile(interfaces[0], tuple(map(_peer, peers)))


def _profile(block: Block, peers: tuple[Peer, ...]) -> Profile:
    private = _key(block.needed("PrivateKey"))
    first = block.needed("Address")
    addresses = tuple(map(_interface, block.each("Address")))
    if not addresses:
        raise first.refused("an address with its prefix length")
    mtu, port = block.maybe("MTU"), block.maybe("ListenPort")
    least = max(LEAST_MTU[family(address.ip)] for address in addresses)
    return Profile(
        private=private,
        addresses=addresses,
        peers=peers,
        dns=tuple(a for value in block.each("DNS") for a in _resolver(value)),
        mtu=_number(mtu, least, MOST_MTU) if mtu else None,
        port=_number(port, 0, MAX_PORT) if port else 0,
    )


def _peer(block: Block) -> Peer:
    public = _key(block.needed("PublicKey"))
    endpoint = _endpoint(block.needed("Endpoint"))
    block.needed("AllowedIPs")
    preshared = block.maybe("PresharedKey")
    keepalive = block.maybe("PersistentKeepalive")
    return Peer(
        public=public,
        endpoint=endpoint,
        allowed=tuple(map(_network, block.each("AllowedIPs"))),
        preshared=_key(preshared) if preshared else None,
        keepalive=_keepalive(keepalive) if keepalive else 0,
    )


def _key(value: Value) -> Key:
    try:
        found = b64decode(value.untrusted_text, validate=True)
    except (binascii.Error, ValueError):
        raise value.refused(KEY) from None
    canonical = b64encode(found).decode() == value.untrusted_text
    if len(found) != KEY_BYTES or not canonical or not any(found):
        raise value.refused(KEY)
    return Key(found)


def _interface(value: Value) -> Interface:
    try:
        found = ip_interface(value.untrusted_text)
    except ValueError:
        raise value.refused("an address with its prefix length") from None
    # The interface forgets the scope of its address.
    if not _is_host(found.ip) or "%" in value.untrusted_text:
        raise value.refused("the address of one host")
    return found


def _network(value: Value) -> AddressRange:
    try:
        network = ip_network(value.untrusted_text, strict=False)
    except ValueError:
        raise value.refused("addresses with their prefix length") from None
    if "%" in value.untrusted_text:
        raise value.refused("addresses that belong to no interface")
    return network


def _resolver(value: Value) -> tuple[Address, ...]:
    """Return the resolver, nothing for a search domain (wg-quick(8), DNS)."""
    try:
        found = ip_address(value.untrusted_text)
    except ValueError:
        if _DOMAIN.fullmatch(value.untrusted_text):
            return ()
        raise value.refused("an address or a search domain") from None
    if not _is_host(found) or found in (*VIRTUAL4, *VIRTUAL6):
        raise value.refused("an address of the provider's")
    return (found,)


def _endpoint(value: Value) -> Endpoint:
    found = _HOST_PORT.fullmatch(value.untrusted_text)
    if found is None:
        raise value.refused("HOST:PORT, an IPv6 address in brackets")
    literal, host, port = found.groups()
    try:
        return Endpoint(_host(literal or host), int(port))
    except EndpointError:
        raise value.refused("HOST:PORT, an address or name and 1-65535") from None


def _host(untrusted_text: str) -> Address | str:
    try:
        address = ip_address(untrusted_text)
    except ValueError:
        return untrusted_text.lower()
    if not _is_host(address):
        raise EndpointError
    return address


def _keepalive(value: Value) -> int:
    if value.untrusted_text.lower() == "off":
        return 0
    return _number(value, 0, MAX_PORT)


def _number(value: Value, least: int, most: int) -> int:
    text = value.untrusted_text
    if not (_NUMBER.fullmatch(text) and least <= int(text) <= most):
        raise value.refused(f"a number within {least}-{most}")
    return int(text)


def _is_host(address: Address) -> bool:
    if any(address in network for network in NO_HOST):
        return False
    match address:
        case IPv4Address():
            return True
        case IPv6Address():
            # One belongs to an interface, the other is never on a wire.
            return not (
                address.is_link_local or address.scope_id or address.ipv4_mapped
            )

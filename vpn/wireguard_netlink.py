# SPDX-License-Identifier: GPL-2.0-or-later
"""The words of the kernel's WireGuard (linux/wireguard.h, over generic netlink).

The socket and the decoder are those of `agent.netlink`, for the same reasons as
there: pyroute2's own class waits for each answer in a loop of its own.
"""

import socket
import struct
from collections.abc import Iterable, Iterator
from errno import ENODEV, ENOENT
from ipaddress import IPv6Address, ip_address

from agent.netlink import (
    CREATE,
    EXCLUSIVE,
    Message,
    Netlink,
    Request,
    attribute,
    attributes,
    link_body,
)
from agent.ports import NetlinkError
from agent.rtnetlink import NEW_LINK, NUMBERS
from rules.model import AddressRange, family
from vpn.endpoints import Target
from vpn.wireguard_device import PeerState, Setting
from vpn.wireguard_profile import Key, Peer

GENERIC = 16  # NETLINK_GENERIC
FAMILY = "wireguard"
CHUNK = 500  # prefixes in one message: an attribute has at most 64 KiB

_HEADER = struct.Struct("=BBH")  # struct genlmsghdr: command, version, reserved
_U8, _U16, _U32 = struct.Struct("=B"), struct.Struct("=H"), struct.Struct("=I")
_U64, _TIME = struct.Struct("=Q"), struct.Struct("=qq")
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_CONTROL, _GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 0x10, 3, 1, 2  # linux/genetlink.h
_GET_DEVICE, _SET_DEVICE = 0, 1  # WG_CMD_…
_INDEX, _PRIVATE, _FLAGS, _PORT, _FWMARK, _PEERS = 1, 3, 5, 6, 7, 8  # WGDEVICE_A_…
_REPLACE_PEERS = 1  # WGDEVICE_F_…
# WGPEER_A_…
_PUBLIC, _PRESHARED, _PEER_FLAGS, _ENDPOINT, _KEEPALIVE = 1, 2, 3, 4, 5
_HANDSHAKE, _RX, _TX, _ALLOWED = 6, 7, 8, 9
_REPLACE_ALLOWED, _UPDATE_ONLY = 2, 4  # WGPEER_F_…
_VERSION, _ADDRESS, _PREFIX = 1, 2, 3  # WGALLOWEDIP_A_…
_NESTED = 0x8000  # NLA_F_NESTED


def add_wireguard(name: str) -> Request:
    """Return the request that makes a device, loading the module if there is one."""
    kind = {"attrs": [("IFLA_INFO_KIND", "wireguard")]}
    body = link_body({}, [("IFLA_IFNAME", name), ("IFLA_LINKINFO", kind)])
    return Request(f"add wireguard {name}", NEW_LINK, body, CREATE | EXCLUSIVE)


def family_of(generic: Netlink) -> int:
    """Return the number of WireGuard's family; `NetlinkError` ENOENT: it has none."""
    body = _HEADER.pack(_GET_FAMILY, 1, 0)
    for message in generic.dump(Request("list netlink families", _CONTROL, body)):
        found = attributes(message.body, _HEADER.size)
        if found.get(_FAMILY_NAME, b"").rstrip(b"\0") == FAMILY.encode():
            return int(_U16.unpack(found[_FAMILY_ID])[0])
    raise NetlinkError(ENOENT, "this kernel has no WireGuard")


def look(number: int, index: int) -> Request:
    """Return the question for the state of device ``index``, to be dumped."""
    body = _HEADER.pack(_GET_DEVICE, 1, 0) + attribute(_INDEX, _U32.pack(index))
    gone = frozenset({ENODEV})
    return Request("look at the tunnel", number, body, fine=gone)


def settings(number: int, index: int, setting: Setting, mark: int) -> Iterator[Request]:
    """Yield what makes a device exactly this; its packets carry ``mark``."""
    own = attribute(_PRIVATE, setting.private.value)
    own += attribute(_PORT, _U16.pack(setting.port))
    own += attribute(_FWMARK, _U32.pack(mark))
    own += attribute(_FLAGS, _U32.pack(_REPLACE_PEERS))
    yield _change(number, index, own)
    peer, target = setting.peer, setting.target
    if peer is None or target is None:
        return
    chunks = [peer.allowed[i : i + CHUNK] for i in range(0, len(peer.allowed), CHUNK)]
    first, *rest = chunks or [()]
    yield _change(number, index, _nested(_PEERS, [_whole(peer, target, first)]))
    for more in rest:
        update = _peer(peer.public, _UPDATE_ONLY) + _allowed(more)
        yield _change(number, index, _nested(_PEERS, [update]))


def steer(number: int, index: int, public: Key, target: Target) -> Request:
    """Return what sends to a peer at ``target``."""
    update = _peer(public, _UPDATE_ONLY) + attribute(_ENDPOINT, sockaddr(target))
    return _change(number, index, _nested(_PEERS, [update]))


def peers(message: Message) -> Iterator[PeerState]:
    """Yield the peers in an answer to `look`; one with many prefixes comes once."""
    device = attributes(message.body, _HEADER.size)
    for entry in _entries(device.get(_PEERS, b"")):
        found = attributes(entry)
        if _HANDSHAKE not in found:
            continue  # more prefixes of the one before
        seconds, nanoseconds = _TIME.unpack(found[_HANDSHAKE])
        yield PeerState(
            public=Key(found[_PUBLIC]),
            endpoint=_target(found.get(_ENDPOINT, b"")),
            handshake=seconds * 10**9 + nanoseconds,
            received=_U64.unpack(found[_RX])[0],
            sent=_U64.unpack(found[_TX])[0],
        )


def sockaddr(target: Target) -> bytes:
    """Return struct sockaddr_in or sockaddr_in6 (ip(7), ipv6(7))."""
    port = struct.pack("!H", target.port)
    if isinstance(target.address, IPv6Address):
        head = _U16.pack(socket.AF_INET6) + port + bytes(4)
        return head + target.address.packed + bytes(4)
    return _U16.pack(socket.AF_INET) + port + target.address.packed + bytes(8)


def _target(data: bytes) -> Target | None:
    if len(data) < len(sockaddr(Target(ip_address(0), 0))):
        return None
    (port,) = struct.unpack_from("!H", data, 2)
    six = _U16.unpack_from(data)[0] == socket.AF_INET6
    return Target(ip_address(data[8:24] if six else data[4:8]), port)


def _change(number: int, index: int, what: bytes) -> Request:
    head = _HEADER.pack(_SET_DEVICE, 1, 0) + attribute(_INDEX, _U32.pack(index))
    return Request("set the tunnel", number, head + what)


def _peer(public: Key, flags: int) -> bytes:
    named = attribute(_PUBLIC, public.value)
    return named + attribute(_PEER_FLAGS, _U32.pack(flags))


def _whole(peer: Peer, target: Target, allowed: Iterable[AddressRange]) -> bytes:
    said = _peer(peer.public, _REPLACE_ALLOWED)
    if peer.preshared is not None:
        said += attribute(_PRESHARED, peer.preshared.value)
    said += attribute(_ENDPOINT, sockaddr(target))
    said += attribute(_KEEPALIVE, _U16.pack(peer.keepalive))
    return said + _allowed(allowed)


def _allowed(networks: Iterable[AddressRange]) -> bytes:
    entries = (
        attribute(_VERSION, _U16.pack(NUMBERS[family(network)]))
        + attribute(_ADDRESS, network.network_address.packed)
        + attribute(_PREFIX, _U8.pack(network.prefixlen))
        for network in networks
    )
    return _nested(_ALLOWED, entries)


def _nested(kind: int, entries: Iterable[bytes]) -> bytes:
    return attribute(
        kind | _NESTED, b"".join(attribute(_NESTED, entry) for entry in entries)
    )


def _entries(data: bytes) -> Iterator[bytes]:
    """Yield the members of a list, whose types mean nothing."""
    start = 0
    while start + _ATTRIBUTE.size <= len(data):
        length, _ = _ATTRIBUTE.unpack_from(data, start)
        if not _ATTRIBUTE.size <= length <= len(data) - start:
            return
        yield data[start + _ATTRIBUTE.size : start + length]
        start += length + 3 & ~3

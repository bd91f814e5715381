# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's WireGuard: what it is asked, and that one without is noticed.

Where the kernel has none, the messages are read back by pyroute2, which knows them
from the same header file, and the kernel that says no is the real one.  The last
tests talk to the one that has it, which is that of `tests.guest`.
"""

import errno
import os
import struct
from contextlib import closing
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Self

import pytest
from pyroute2.netlink.generic.wireguard import wgmsg

from agent.netlink import ROUTE, Message, Netlink, Request, attribute
from agent.ports import NetlinkError
from vpn import wireguard_go, wireguard_kernel, wireguard_start
from vpn.endpoints import Endpoint, Target
from vpn.wireguard_device import PeerState, Setting
from vpn.wireguard_go import WireguardGo
from vpn.wireguard_kernel import MARK, TRIED, WireguardKernel
from vpn.wireguard_netlink import (
    CHUNK,
    GENERIC,
    add_wireguard,
    family_of,
    peers,
    settings,
    sockaddr,
    steer,
)
from vpn.wireguard_profile import Key, Peer

PRIVATE, PUBLIC, SHARED = (Key(bytes([n]) * 32) for n in (1, 2, 3))
TARGET = Target(ip_address("203.0.113.1"), 51820)
TARGET6 = Target(ip_address("2001:db8::1"), 443)
PEER = Peer(
    PUBLIC,
    Endpoint(TARGET.address, TARGET.port),
    (ip_network("0.0.0.0/0"), ip_network("2001:db8::/32")),
    SHARED,
    25,
)
NUMBER, INDEX = 30, 7


def decoded(request: Request) -> dict[str, object]:
    """Return the attributes of a message, as pyroute2 understands them."""
    length = 16 + len(request.body)
    raw = struct.pack("=IHHII", length, request.kind, 5, 1, 0) + request.body
    message = wgmsg(raw)
    message.decode()
    return dict(message["attrs"])


def peer_of(request: Request) -> dict[str, object]:
    (peer,) = decoded(request)["WGDEVICE_A_PEERS"]  # type: ignore[misc]
    return dict(peer["attrs"])


def test_a_setting_replaces_all_peers_and_marks_all_packets() -> None:
    own, peer = settings(NUMBER, INDEX, Setting(PRIVATE, 51000, PEER, TARGET), MARK)

    found = decoded(own)
    assert found["WGDEVICE_A_IFINDEX"] == INDEX
    assert found["WGDEVICE_A_FLAGS"] == 1
    assert found["WGDEVICE_A_FWMARK"] == MARK
    assert found["WGDEVICE_A_LISTEN_PORT"] == 51000
    assert attribute(3, PRIVATE.value) in own.body
    said = peer_of(peer)
    assert said["WGPEER_A_FLAGS"] == 2
    assert said["WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL"] == 25
    assert attribute(1, PUBLIC.value) in peer.body
    assert attribute(2, SHARED.value) in peer.body
    assert attribute(4, sockaddr(TARGET)) in peer.body
    allowed = [dict(entry["attrs"]) for entry in said["WGPEER_A_ALLOWEDIPS"]]  # type: ignore[attr-defined]
    assert [entry["WGALLOWEDIP_A_CIDR_MASK"] for entry in allowed] == [0, 32]
    assert [entry["WGALLOWEDIP_A_FAMILY"] for entry in allowed] == [2, 10]


def test_a_setting_without_a_server_has_no_peer() -> None:
    (own,) = settings(NUMBER, INDEX, Setting(PRIVATE, 0), MARK)

    assert "WGDEVICE_A_PEERS" not in decoded(own)


def test_many_prefixes_go_in_several_messages() -> None:
    """An attribute has at most 64 KiB; what is added later replaces nothing."""
    many = tuple(ip_network((n << 8, 24)) for n in range(2 * CHUNK + 1))
    peer = Peer(PUBLIC, PEER.endpoint, many)
    _, *messages = settings(NUMBER, INDEX, Setting(PRIVATE, 0, peer, TARGET), MARK)

    assert [peer_of(each)["WGPEER_A_FLAGS"] for each in messages] == [2, 4, 4]
    sizes = [len(peer_of(each)["WGPEER_A_ALLOWEDIPS"]) for each in messages]  # type: ignore[arg-type]
    assert sizes == [CHUNK, CHUNK, 1]
    assert all(len(each.body) < 65536 for each in messages)


def test_steering_makes_no_new_peer() -> None:
    said = steer(NUMBER, INDEX, PUBLIC, TARGET6)

    assert peer_of(said)["WGPEER_A_FLAGS"] == 4
    assert attribute(4, sockaddr(TARGET6)) in said.body


def test_addresses_have_the_layout_of_the_socket_calls() -> None:
    assert sockaddr(TARGET).hex() == "0200ca6ccb0071010000000000000000"
    assert len(sockaddr(TARGET6)) == 28
    assert sockaddr(TARGET6)[8:24] == TARGET6.address.packed


def test_the_state_of_a_peer_is_read() -> None:
    entry = attribute(1, PUBLIC.value) + attribute(4, sockaddr(TARGET6))
    entry += attribute(6, struct.pack("=qq", 1_700_000_000, 5))
    entry += attribute(7, struct.pack("=Q", 99)) + attribute(8, struct.pack("=Q", 1234))
    more = attribute(1, PUBLIC.value)  # the rest of its prefixes
    body = struct.pack("=BBH", 0, 1, 0)
    body += attribute(8 | 0x8000, attribute(0, entry) + attribute(0, more))

    handshake = 1_700_000_000 * 10**9 + 5
    assert list(peers(Message(NUMBER, body))) == [
        PeerState(PUBLIC, TARGET6, handshake, 99, 1234)
    ]


@pytest.mark.parametrize("cut", range(0, 120, 7))
def test_a_message_that_was_cut_off_breaks_nothing(cut: int) -> None:
    body = struct.pack("=BBH", 0, 1, 0) + attribute(8, attribute(0, bytes(100)))

    assert list(peers(Message(NUMBER, body[: 4 + cut]))) == []


def has_wireguard() -> bool:
    return wireguard_kernel.is_there()


@pytest.mark.kernel
@pytest.mark.usefixtures("net")
def test_a_kernel_with_or_without_wireguard_is_told_apart() -> None:
    """Without: ENOENT for the family, EOPNOTSUPP for the device; with: a device."""
    with Netlink(ROUTE) as kernel, Netlink(GENERIC) as generic:
        if has_wireguard():
            kernel.do(add_wireguard("wg7"))
            assert family_of(generic)
            return
        with pytest.raises(NetlinkError) as no_family:
            family_of(generic)
        with pytest.raises(NetlinkError) as no_device:
            kernel.do(add_wireguard("wg7"))
    assert no_family.value.errno == errno.ENOENT
    assert no_device.value.errno == errno.EOPNOTSUPP


@dataclass
class Kernel:
    """One that has WireGuard; ``there`` are its devices."""

    there: set[str]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def do(self, request: Request) -> None:
        name = request.what.split()[-1]
        if name in self.there:
            raise NetlinkError(errno.EEXIST, request.what)
        self.there.add(name)


@pytest.mark.parametrize("there", [set(), {TRIED}], ids=["first", "after-a-kill"])
def test_what_an_agent_left_that_was_killed_does_not_hide_wireguard(
    monkeypatch: pytest.MonkeyPatch, there: set[str]
) -> None:
    """The device that only tries would be in the way of the next try for ever."""
    kernel = Kernel(there)
    monkeypatch.setattr(wireguard_kernel, "Netlink", lambda _: kernel)
    monkeypatch.setattr(wireguard_kernel.tun, "remove", kernel.there.discard)

    assert wireguard_kernel.is_there()
    assert kernel.there == set()


@pytest.mark.kernel
@pytest.mark.usefixtures("net")
def test_the_agent_takes_what_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wireguard_start, "Berth", lambda _: FakeBerth())
    device = wireguard_start.device()
    if has_wireguard():
        assert isinstance(device, WireguardKernel)
        device.close()
        return
    assert isinstance(device, WireguardGo)
    monkeypatch.setattr(wireguard_go, "is_installed", lambda: False)
    assert wireguard_start.device() is None


class FakeBerth:
    """A berth nobody comes to."""

    uid = 61500

    def fileno(self) -> int:
        return os.eventfd(0)


@pytest.mark.kernel
@pytest.mark.usefixtures("net")
def test_the_kernels_device_is_what_it_was_told() -> None:
    """Where the kernel has it; elsewhere making it says why not."""
    with closing(WireguardKernel("wg7")) as device:
        if not has_wireguard():
            with pytest.raises(NetlinkError):
                device.make()
            assert device.link is None
            assert not device.ready
            return
        device.make()
        device.set(Setting(PRIVATE, 0, PEER, TARGET))
        device.look()
        assert device.peer is not None
        assert (device.peer.public, device.peer.endpoint) == (PUBLIC, TARGET)
        device.steer(PUBLIC, TARGET6)
        device.look()
        assert device.peer.endpoint == TARGET6

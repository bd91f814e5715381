# SPDX-License-Identifier: GPL-2.0-or-later
"""A VPN by the kernel's own WireGuard: no daemon, and a mark in place of its user."""

import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from controller import namespaces
from tests.e2e.machine import WEB4, until
from tests.e2e.vpn_room import PATIENCE, PROVIDER
from tests.e2e.wireguard_room import IN_TUNNEL, Room, connected, leaked, tunnelled
from tests.lab.wireguard import base64
from vpn.wireguard_kernel import MARK


@pytest.fixture(scope="module")
def _running() -> Iterator[Room]:
    with connected() as made:
        yield made


@pytest.fixture
def vpn(_running: Room) -> Room:
    """The room, with the tunnel up."""
    _running.comes_up()
    return _running


def test_clients_leave_by_the_tunnel_and_no_daemon_is_there(vpn: Room) -> None:
    """wireguard-go is installed too; what the kernel has comes first."""
    assert vpn.seen_from("work") == IN_TUNNEL
    report = vpn.vpn()["report"]
    assert isinstance(report, dict)
    assert report["by"] == "WireGuard of the kernel"
    with namespaces.inside(vpn.machine.net("sys-vpn")):
        names = [name for _, name in socket.if_nameindex()]
    assert "wg0" in names
    kinds = vpn.machine.tool("sys-vpn", "ip", "-d", "link", "show", "wg0")
    assert "wireguard" in kinds


def test_another_program_sees_the_tunnel_that_the_agent_made(vpn: Room) -> None:
    """The judge is wg(8): one peer, its server, all prefixes, our mark."""
    own, peer = vpn.machine.tool("sys-vpn", "wg", "show", "wg0", "dump").splitlines()

    _, ours, _, mark = own.split("\t")
    assert ours == base64(vpn.client.public)
    assert int(mark, 16) == MARK
    public, _, server, prefixes, *_ = peer.split("\t")
    assert public == base64(vpn.provider.keys.public)
    assert server == f"{PROVIDER}:{vpn.provider.port}"
    assert set(prefixes.split(",")) == {"0.0.0.0/0", "::/0"}


def test_only_the_tunnel_leaves_while_its_device_is_taken_away(vpn: Room) -> None:
    """And the tunnel comes again by itself."""
    with vpn.sniffer() as seen:
        vpn.machine.tool("sys-vpn", "ip", "link", "delete", "wg0")
        for _ in range(20):
            vpn.machine.tries("work", "tcp", WEB4, 80)
        until(vpn.flows, PATIENCE)

    assert leaked(seen) == []
    assert tunnelled(seen)


@pytest.mark.parametrize(("mark", "leaves"), [(0, False), (MARK, True)])
def test_who_is_not_the_tunnel_does_not_reach_its_server(
    vpn: Room, mark: int, *, leaves: bool
) -> None:
    """root in the VPN is told by the mark alone; with it is the positive control."""
    said = b"not the tunnel"
    with vpn.sniffer() as seen:
        with (
            namespaces.inside(vpn.machine.net("sys-vpn")),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as rogue,
        ):
            rogue.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            with suppress(OSError):
                rogue.sendto(said, (PROVIDER, vpn.provider.port))
        until(vpn.flows, PATIENCE)

    assert any(said in packet.raw for packet in tunnelled(seen)) is leaves

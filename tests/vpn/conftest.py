# SPDX-License-Identifier: GPL-2.0-or-later
"""Network namespaces for tests of tunnels."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.berth import CARRIERS, Berth
from controller import namespaces
from tests.lab.enterable import enterable
from tests.lab.wireguard import Server, server
from tests.vpn.wireguard_room import DAEMON, HERE, PROVIDER
from vpn.wireguard_go import WireguardGo

Ip = Callable[[str], str]


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Path]:
    """Put the test into an empty network namespace."""
    path = tmp_path / "net"
    namespaces.create(path)
    with namespaces.inside(path):
        yield path
    namespaces.remove(path)


@pytest.fixture
def ip() -> Ip:
    """Run ip(8) where the test is and return what it prints."""

    def run(command: str) -> str:
        argv = ["ip", *command.split()]
        done = subprocess.run(argv, check=True, capture_output=True, text=True)
        return done.stdout

    return run


@pytest.fixture
def provider(net: Path, tmp_path: Path, ip: Ip) -> Iterator[Server]:
    """A server in a namespace of its own, at the far end of eth0."""
    assert net.exists()
    there = tmp_path / "provider"
    namespaces.create(there)
    ip(f"link add eth0 type veth peer name wan netns {there}")
    ip(f"address add {HERE}/24 dev eth0")
    for link in ("lo", "eth0"):
        ip(f"link set {link} up")
    with namespaces.inside(there):
        ip(f"address add {PROVIDER}/24 dev wan")
        ip("link set wan up")
    try:
        # The name of its socket is one of the whole machine's.
        with server(there, name=f"wgs{os.getpid()}") as made:
            yield made
    finally:
        namespaces.remove(there)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name in ("berth", "meeting", "meeting/wireguard"):
        (tmp_path / name).mkdir()
    os.chown(tmp_path / "meeting/wireguard", DAEMON, 0)
    enterable(tmp_path / "berth")
    return tmp_path


@pytest.fixture
def device(
    net: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WireguardGo]:
    assert net.exists()
    monkeypatch.setenv(CARRIERS, f"wireguard={DAEMON}")
    berth = Berth("wireguard", directory / "berth", directory / "meeting")
    made = WireguardGo(berth, "wg0", directory / "berth")
    yield made
    made.close()
    berth.close()

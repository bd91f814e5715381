# SPDX-License-Identifier: GPL-2.0-or-later
"""A policy file with tunnels can be tried in the lab: its provider is there."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller import namespaces
from controller.lab import seen
from controller.lab.addresses import RESOLVERS, WEB, remote
from controller.lab.provider import Provider
from controller.lab.tor_network import PAGE
from controller.platforms.lab import Internet
from controller.policy import read
from tests.lab.tor_network import TorLab

pytestmark = pytest.mark.kernel

EXAMPLES = Path(__file__).parents[3] / "examples"
TUNNELS = """
[domains.sys-net]
personality = "netvm"
uplink = "lab"
[domains.sys-vpn]
personality = "wireguard"
netvm = "sys-net"
config = "provider.conf"
[domains.sys-vpn2]
personality = "wireguard"
netvm = "sys-net"
config = "other.conf"
[domains.sys-openvpn]
personality = "openvpn"
netvm = "sys-net"
config = "provider.ovpn"
auth = "password"
[domains.sys-tor]
personality = "tor"
netvm = "sys-vpn"
network = "tor-network"
bridges = "tor-bridges"
"""
WRITTEN = {
    "provider.conf": "Endpoint = 203.0.113.31:51820\n",
    "other.conf": "Endpoint = 203.0.113.32:51820\n",
    "provider.ovpn": "remote 203.0.113.43 1194 udp\n",
    "password": "somebody\ncorrect horse\n",
    "tor-network": "DirAuthority exit1 ",
    "tor-bridges": "obfs4 203.0.113.20:4443 ",
}


def test_all_that_a_policy_names_is_written_and_it_can_be_read(
    tor_network: TorLab, tmp_path: Path
) -> None:
    """Every file is for its owner alone, or the policy would be refused."""
    policy = tmp_path / "policy.toml"
    policy.write_text(TUNNELS)
    said: list[str] = []
    sites = Provider(tor_network.internet, said.append).furnish(policy)
    for name, text in WRITTEN.items():
        assert text in (tmp_path / name).read_text()
    assert read(TUNNELS, file=str(policy), qids={}, now=0).named("sys-tor")
    assert len(said) == 4
    assert {gateway: seen[PAGE] for gateway, seen in sites.items()} == {
        "sys-vpn": frozenset(remote(31)),
        "sys-vpn2": frozenset(remote(32)),
        "sys-openvpn": frozenset(remote(43)),
        "sys-tor": frozenset(tor_network.network.exits),
    }


def test_a_policy_without_tunnels_needs_nobody(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    shutil.copy(EXAMPLES / "home.toml", policy)
    internet = Internet(tmp_path)
    said: list[str] = []
    assert Provider(internet, said.append).furnish(policy) == {}
    assert not said
    assert not internet.running
    assert list(tmp_path.iterdir()) == [policy]


@pytest.fixture
def netvm(tmp_path: Path) -> Iterator[Path]:
    internet, net = Internet(tmp_path), tmp_path / "netvm"
    internet.up()
    namespaces.create(net)
    internet.attach(net)
    yield net
    namespaces.remove(net)
    internet.down()


def test_a_domain_is_told_which_address_of_it_each_site_sees(netvm: Path) -> None:
    with namespaces.inside(netvm):
        done = subprocess.run(
            ["/usr/bin/python3", "-I", seen.__file__, *map(str, WEB)],
            capture_output=True,
            check=True,
        )
    assert json.loads(done.stdout) == ["192.0.2.2", "2001:db8:1::2"]


def test_a_site_that_is_not_there_sees_nobody(
    netvm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seen, "PATIENCE", 0.2)
    monkeypatch.setattr(seen, "PAUSE", 0.0)
    with namespaces.inside(netvm):
        assert seen.seen(str(RESOLVERS[0])) == ""

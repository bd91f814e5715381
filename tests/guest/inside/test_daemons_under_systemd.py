# SPDX-License-Identifier: GPL-2.0-or-later
"""The units of a TorVM and of VPNs, with those of the daemons that they start."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import create_server, socket

import pytest

from controller import namespaces
from tests.guest.inside.unit_room import (
    OUTSIDE,
    OWN,
    PATIENCE,
    PROVIDER,
    drop_in,
    is_confined,
    secret,
    started,
    tool,
)
from tests.lab.wireguard import Keys, base64
from tests.vpn import openvpn_server
from tests.vpn.openvpn_server import Pki

pytestmark = pytest.mark.usefixtures("gateway")

BRIDGE, BROKER = 443, 80
BRIDGES = f"""\
obfs4 {PROVIDER}:{BRIDGE} {"1" * 40} cert={"A" * 70} iat-mode=0
snowflake 192.0.2.3:80 {"2" * 40} url=http://{PROVIDER}/ ice=stun:{PROVIDER}:3478
"""
PROGRAMS = {
    "tor": "tor",
    "transport": "obfs4proxy",
    "snowflake": "snowflake-client",
}
PORT, IN_TUNNEL = 51820, "10.64.0.2"


@contextmanager
def listening(port: int) -> Iterator[socket]:
    """Have somebody listen at the provider."""
    with namespaces.inside(OUTSIDE):
        made = create_server((PROVIDER, port))
    with made:
        made.settimeout(PATIENCE)
        yield made


def first_words(server: socket) -> bytes:
    """Return what we say there, once we do."""
    made, (peer, _) = server.accept()
    assert peer == OWN
    with made:
        made.settimeout(PATIENCE)
        return made.recv(4096)


def test_tor_and_its_transports_run_confined_and_reach_what_they_are_told() -> None:
    """Each transport speaks outside, and tor tells its agent that it is on its way.

    What has started in its sandbox, tor's own among them, ends when it is told to.
    """
    with (
        secret("bridges", BRIDGES),
        drop_in("ravelin-torvm", "LoadCredential=bridges:/etc/ravelin/bridges"),
        listening(BRIDGE) as bridge,
        listening(BROKER) as broker,
        started("ravelin-torvm") as there,
    ):
        assert first_words(bridge)
        assert first_words(broker).startswith(b"POST /client ")
        # What comes after "Starting" is more than one word, and may be skipped.
        there.hears("/ravelin/report/doing", " ")
        for name, program in PROGRAMS.items():
            is_confined(name, program)


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[str]:
    """A WireGuard server of the kernel outside; gives the profile of a client."""
    server, client = Keys(), Keys()
    secret = tmp_path / "key"
    secret.write_text(base64(server.private))
    public = base64(client.public)
    with namespaces.inside(OUTSIDE):
        tool("ip link add server type wireguard")
        words = f"wg set server listen-port {PORT} private-key {secret}"
        tool(f"{words} peer {public} allowed-ips {IN_TUNNEL}/32")
        tool("ip address add 10.64.0.1/24 dev server")
        tool("ip link set server up")
    yield "\n".join(
        [
            "[Interface]",
            f"PrivateKey = {base64(client.private)}",
            f"Address = {IN_TUNNEL}/32",
            "[Peer]",
            f"PublicKey = {base64(server.public)}",
            "AllowedIPs = 0.0.0.0/0",
            f"Endpoint = {PROVIDER}:{PORT}",
            "",
        ]
    )
    with namespaces.inside(OUTSIDE):
        tool("ip link delete server")


def test_wireguard_gets_its_profile_as_a_credential_and_comes_up(provider: str) -> None:
    """By the kernel's WireGuard; the profile is for root alone."""
    with secret("wireguard.conf", provider), started("ravelin-vpn@wireguard") as there:
        there.hears("/ravelin/status", "state=up")
        assert there.said.get("/ravelin/trouble", "") == ""


@pytest.fixture
def pki(tmp_path: Path) -> Iterator[Pki]:
    """An OpenVPN server outside, with a resolver; gives the authority of both ends."""
    made = Pki(tmp_path / "pki")
    made.issue("server", "server")
    made.issue("client", "client")
    resolver = f'push "dhcp-option DNS {openvpn_server.INSIDE}"'
    server = openvpn_server.Server(made, OUTSIDE, PROVIDER, more=(resolver,))
    with openvpn_server.running(server, PATIENCE):
        yield made


def test_openvpn_gets_its_profile_as_a_credential_and_comes_up(pki: Pki) -> None:
    """The agent gives its daemon the tun device, and has asked the resolver in it."""
    Path("/dev/net/tun").chmod(0o666)  # as udev does, which is not here
    profile = openvpn_server.profile(pki, f"{PROVIDER} 1194")
    with secret("openvpn.conf", profile), started("ravelin-vpn@openvpn") as there:
        there.hears("/ravelin/status", "state=up")
        assert there.said.get("/ravelin/trouble", "") == ""
        is_confined("openvpn", "openvpn")


def test_a_vpn_without_a_profile_runs_and_says_so() -> None:
    """SetCredential= stands in for the file; the guard is there all the same."""
    with started("ravelin-vpn@wireguard") as there:
        assert there.hears("/ravelin/trouble", " ")
        assert "state=up" not in there.hears("/ravelin/status", "state=")
        assert "ravelin-guard" in tool("nft list tables")

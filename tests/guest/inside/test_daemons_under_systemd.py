# SPDX-License-Identifier: GPL-2.0-or-later
"""The units of a TorVM and of VPNs, with those of the daemons that they start."""

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import create_connection, create_server, socket

import pytest

from agent.berth import DAEMONS, END
from controller import namespaces
from tests.e2e.machine import ANSWER
from tests.guest.guest import USED
from tests.guest.inside.unit_room import (
    CLIENT,
    CLIENT_KEYS,
    OUTSIDE,
    OWN,
    PATIENCE,
    PROVIDER,
    client,
    drop_in,
    is_confined,
    secret,
    shown,
    started,
    tool,
    until,
)
from tests.lab.wireguard import Keys, base64, server
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
OTHER_END, WEB = "10.64.0.1", 80
AGENT = "setpriv --reuid=ravelin-agent --regid=ravelin-agent --clear-groups"
END_AS_AGENT = f"{AGENT} cp /etc/passwd {DAEMONS}/wireguard/{END}"


@contextmanager
def listening(port: int, address: str = PROVIDER) -> Iterator[socket]:
    """Have somebody listen at the provider."""
    with namespaces.inside(OUTSIDE):
        made = create_server((address, port))
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
        tool(f"ip address add {OTHER_END}/24 dev server")
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
def _tun() -> None:
    """Let everybody have a tun device, as udev does, which is not here."""
    Path("/dev/net/tun").chmod(0o666)


@pytest.fixture
def _no_module() -> Iterator[None]:
    """Have a kernel without WireGuard, here and outside (modprobe.d(5)).

    The other half of the tests has it as long as it runs.
    """
    refusal = Path("/etc/modprobe.d/no-wireguard.conf")
    with Path(USED).open() as used:
        fcntl.flock(used, fcntl.LOCK_EX)
        refusal.write_text("install wireguard /bin/false\n")
        tool("modprobe -r wireguard")
        yield
        refusal.unlink()
        tool("modprobe wireguard")


@pytest.fixture
def go_profile(_no_module: None) -> Iterator[str]:
    """A server by wireguard-go outside; gives the profile of a client."""
    keys = Keys()
    with server(OUTSIDE, PORT, f"{OTHER_END}/24") as made:
        made.accept(keys.public, f"{IN_TUNNEL}/32")
        yield made.profile(keys, PROVIDER, DNS="")


def arrives(web: socket) -> bool:
    """Say whether a client reaches who listens in the tunnel, and by the tunnel."""
    with namespaces.inside(CLIENT):
        try:
            made = create_connection((OTHER_END, WEB), ANSWER)
        except OSError:
            return False
    with made:
        made.sendall(b"hello")
    taken, (peer, _) = web.accept()
    with taken:
        taken.settimeout(PATIENCE)
        return peer == IN_TUNNEL and taken.recv(4096) == b"hello"


@pytest.mark.usefixtures("_tun")
def test_wireguard_go_runs_confined_and_carries_clients_again_once_killed(
    go_profile: str,
) -> None:
    """By wireguard-go, as the kernel has no WireGuard; systemd starts it again.

    One that stands still is ended as the agent does it, and with its rights.

    Told to end, it does so in time, though its agent and its device stay.
    """
    unit = "ravelin-daemon@wireguard"
    with (
        secret("wireguard.conf", go_profile),
        client(),
        started("ravelin-vpn@wireguard") as there,
        listening(WEB, OTHER_END) as web,
    ):
        there.give(CLIENT_KEYS)
        there.hears("/ravelin/report/by", "wireguard-go")
        there.hears("/ravelin/status", "state=up")
        until(lambda: arrives(web))
        assert shown(unit, "ActiveState") == "active"
        is_confined("wireguard", "wireguard-go")

        for number in (signal.SIGKILL, signal.SIGSTOP):
            before, starts = shown(unit, "MainPID"), int(shown(unit, "NRestarts"))
            os.kill(int(before), number)
            if number == signal.SIGSTOP:
                tool(END_AS_AGENT)
            until(lambda old=before: shown(unit, "MainPID") not in ("0", old))
            until(lambda: arrives(web))
            assert int(shown(unit, "NRestarts")) > starts
            is_confined("wireguard", "wireguard-go")

        tool(f"systemctl stop {unit}")
        assert shown(unit, "Result") == "success"


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


@pytest.mark.usefixtures("_tun")
def test_openvpn_gets_its_profile_as_a_credential_and_comes_up(pki: Pki) -> None:
    """The agent gives its daemon the tun device, and has asked the resolver in it."""
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

# SPDX-License-Identifier: GPL-2.0-or-later
"""The units, installed as `make install` does and run by a systemd that is process 1.

The machine plays one gateway in a VM: a QubesDB where Qubes has it, an uplink
``eth0`` and, at its other end, the provider of a VPN.
"""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

from controller import namespaces
from tests.lab.wireguard import Keys, base64

ROOT = Path(__file__).parents[3]
PATIENCE = 240.0  # seconds; only a failing test waits that long
GATEWAY, OWN = "10.137.0.8", "10.137.0.9"
VIF_MAC = "fe:ff:ff:ff:ff:ff"
KEYS = {
    "/qubes-ip": OWN,
    "/qubes-gateway": GATEWAY,
    "/qubes-netmask": "255.255.255.255",
    "/qubes-primary-dns": "10.139.1.1",
    "/qubes-secondary-dns": "10.139.1.2",
    "/qubes-netvm-gateway": OWN,
}
OUTSIDE = Path("/run/outside")
PROVIDER, PORT, IN_TUNNEL = "192.0.2.1", 51820, "10.64.0.2"
AGENTS = ("ravelin-netvm", "ravelin-firewallvm")
VPN = "ravelin-vpn@wireguard"
T = TypeVar("T")


def tool(line: str) -> str:
    words = line.split()
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def until(found: Callable[[], T]) -> T:
    deadline = time.monotonic() + PATIENCE
    while not (result := found()):
        assert time.monotonic() < deadline, "not so within the deadline"
    return result


@dataclass
class Dom0:
    """The other end of the QubesDB."""

    process: subprocess.Popen[bytes]
    said: dict[str, str] = field(default_factory=dict)
    _rest: bytes = b""

    def give(self, keys: dict[str, str]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("".join(f"{x} {keys[x]}\n" for x in keys).encode())

    def hears(self, path: str, word: str) -> str:
        """Return what the agent writes there, once it has this word."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + PATIENCE
        while path not in self.said or word not in self.said[path]:
            left = deadline - time.monotonic()
            assert select.select([self.process.stdout], [], [], left)[0], self.said
            read = os.read(self.process.stdout.fileno(), 65536)
            *lines, self._rest = (self._rest + read).split(b"\n")
            told = (line.decode().partition(" ") for line in lines)
            self.said |= {key: value for key, _, value in told}
        return self.said[path]


def package(word: str) -> None:
    """Do what `make install` or `make uninstall` does."""
    place = {"DESTDIR": "", "PREFIX": "/usr"}
    words = [ROOT / "packaging/install", word]
    subprocess.run(words, check=True, env=os.environ | place)


@pytest.fixture(autouse=True)
def _no_rules() -> None:
    """No unit finds the rules of an earlier one."""
    tool("nft flush ruleset")


@pytest.fixture(scope="module", autouse=True)
def _installed() -> Iterator[None]:
    """The package on this machine, and an uplink."""
    with ExitStack() as undo:
        undo.callback(package, "uninstall")
        package("install")
        tool("systemd-sysusers")
        tool("systemd-tmpfiles --create")
        tool("systemctl daemon-reload")
        namespaces.create(OUTSIDE)
        undo.callback(namespaces.remove, OUTSIDE)
        tool("ip link add eth0 type veth peer name far")
        undo.callback(tool, "ip link delete eth0")
        tool(f"ip link set far netns {OUTSIDE}")
        with namespaces.inside(OUTSIDE):
            tool(f"ip link set far address {VIF_MAC}")
            tool(f"ip address add {GATEWAY}/32 dev far")
            tool(f"ip address add {PROVIDER}/32 dev far")
            tool("ip link set far up")
            tool(f"ip route add {OWN} dev far")
        yield


@contextmanager
def dom0() -> Iterator[Dom0]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.guest.inside.dom0"],
        cwd=ROOT,
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        made = Dom0(process)
        made.hears("serves", "")
        made.give(KEYS)
        try:
            yield made
        finally:
            process.kill()


@contextmanager
def started(unit: str) -> Iterator[None]:
    """Have a unit run; `systemctl start` returns when it says that it is ready.

    Its daemons would go on without it, and the next agent take them over.
    """
    try:
        tool(f"systemctl start {unit}")
        yield
    except subprocess.CalledProcessError as error:
        error.add_note(tool(f"journalctl --no-pager -n 40 -u {unit}"))
        raise
    finally:
        tool(f"systemctl stop {unit} ravelin-daemon@*")


def shown(unit: str, name: str) -> str:
    return tool(f"systemctl show --value -p {name} {unit}").strip()


def status_of(pid: str) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (x.partition(":") for x in lines)}


@pytest.mark.parametrize("unit", AGENTS)
def test_an_agent_is_ready_with_its_guard_and_as_nobody(unit: str) -> None:
    """And it has given up all but CAP_NET_ADMIN (12)."""
    with dom0() as there, started(unit):
        assert shown(unit, "ActiveState") == "active"
        there.hears("/ravelin/status", "generation=")
        assert "ravelin-guard" in tool("nft list tables")
        status = status_of(shown(unit, "MainPID"))
        assert status["Uid"].split()[0] != "0"
        assert int(status["CapEff"], 16) == 1 << 12
        assert status["NoNewPrivs"] == "1"


def test_what_a_unit_enforces_stays_when_it_is_stopped() -> None:
    with dom0(), started("ravelin-netvm"):
        pass

    assert "ravelin-guard" in tool("nft list tables")


def test_an_agent_that_is_killed_or_silent_is_started_again() -> None:
    """SIGSTOP is silence: the watchdog's ten seconds are systemd's to keep."""
    unit = "ravelin-netvm"
    with dom0(), started(unit):
        for number in (signal.SIGKILL, signal.SIGSTOP):
            before = shown(unit, "MainPID")
            os.kill(int(before), number)
            until(lambda old=before: shown(unit, "MainPID") not in ("0", old))
            until(lambda: shown(unit, "ActiveState") == "active")


def test_a_reload_reads_all_anew_in_the_same_process() -> None:
    unit = "ravelin-netvm"
    with dom0() as there, started(unit):
        first = there.hears("/ravelin/status", "generation=")
        before = shown(unit, "MainPID")
        there.said.clear()

        tool(f"systemctl reload {unit}")

        there.hears("/ravelin/status", "generation=")
        assert shown(unit, "MainPID") == before
        assert first


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


def test_a_vpn_gets_its_profile_as_a_credential_and_comes_up(provider: str) -> None:
    """By the kernel's WireGuard; the profile is for root alone."""
    profile = Path("/etc/ravelin/wireguard.conf")
    profile.parent.mkdir(exist_ok=True)
    profile.touch(mode=0o600)
    profile.write_text(provider)
    try:
        with dom0() as there, started(VPN):
            there.hears("/ravelin/status", "state=up")
            assert there.said.get("/ravelin/trouble", "") == ""
    finally:
        profile.unlink()


def test_a_vpn_without_a_profile_runs_and_says_so() -> None:
    """SetCredential= stands in for the file; the guard is there all the same."""
    with dom0() as there, started(VPN):
        assert there.hears("/ravelin/trouble", " ")
        assert "state=up" not in there.hears("/ravelin/status", "state=")
        assert "ravelin-guard" in tool("nft list tables")

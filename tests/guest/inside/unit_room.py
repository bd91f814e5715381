# SPDX-License-Identifier: GPL-2.0-or-later
"""A gateway in a VM whose agents are units, run by a systemd that is process 1.

It has a QubesDB where Qubes has it and an uplink ``eth0``; at its other end is
the namespace `OUTSIDE`, with whoever serves there at `PROVIDER`.  A client, if a test
has one, is the namespace `CLIENT`, behind a vif.  The package was there when the
machine started, which made its users and its places.
"""

import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from agent.berth import DAEMONS
from agent.qubesdb import SOCKET
from controller import namespaces

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
VIF, BEHIND, CLIENT_MAC = "vif1.0", "10.137.0.20", "00:16:3e:5e:6c:00"
# In this order: the empty one commits the rules, and then comes the vif.
CLIENT_KEYS = {
    f"/qubes-firewall/{BEHIND}/policy": "accept",
    f"/qubes-firewall/{BEHIND}": "",
    f"/ravelin/vif/{VIF}": f"mac={CLIENT_MAC} ip={BEHIND}",
}
OUTSIDE, CLIENT = Path("/run/outside"), Path("/run/client")
PROVIDER = "192.0.2.1"
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


@contextmanager
def uplink() -> Iterator[None]:
    """Have the uplink, and no rules of an earlier agent."""
    with ExitStack() as undo:
        tool("nft flush ruleset")
        namespaces.create(OUTSIDE)
        undo.callback(namespaces.remove, OUTSIDE)
        tool("ip link add eth0 type veth peer name far")
        undo.callback(tool, "ip link delete eth0")
        tool(f"ip link set far netns {OUTSIDE}")
        with namespaces.inside(OUTSIDE):
            tool(f"ip link set far address {VIF_MAC}")
            tool(f"ip address add {GATEWAY}/32 dev far")
            tool(f"ip address add {PROVIDER}/32 dev far")
            tool("ip link set lo up")
            tool("ip link set far up")
            tool(f"ip route add {OWN} dev far")
        yield


@contextmanager
def client() -> Iterator[None]:
    """Have a client behind the gateway; dom0 says who it is by `CLIENT_KEYS`."""
    with ExitStack() as undo:
        namespaces.create(CLIENT)
        undo.callback(namespaces.remove, CLIENT)
        tool(f"ip link add {VIF} type veth peer name near")
        undo.callback(tool, f"ip link delete {VIF}")
        tool(f"ip link set near netns {CLIENT}")
        with namespaces.inside(CLIENT):
            tool(f"ip link set near address {CLIENT_MAC}")
            tool(f"ip address add {BEHIND}/32 dev near")
            tool("ip link set near up")
            tool(f"ip route add {OWN} dev near")
            tool(f"ip route add default via {OWN} dev near")
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
def started(unit: str) -> Iterator[Dom0]:
    """Have a unit run; `systemctl start` returns when it says that it is ready.

    Its daemons would go on without it, and the next agent take them over.  Both
    end when they are told to: what systemd has to kill is a unit that failed.
    """
    with dom0() as there:
        try:
            tool(f"systemctl start {unit}")
            yield there
        except BaseException as error:
            error.add_note(tool("journalctl --no-pager -n 80 -u ravelin-*"))
            raise
        finally:
            tool(f"systemctl stop {unit} ravelin-daemon@*")
    assert tool("systemctl list-units --failed --plain --no-legend ravelin-*") == ""


@contextmanager
def secret(name: str, text: str) -> Iterator[None]:
    """Have a file in /etc/ravelin that root alone can read."""
    made = Path("/etc/ravelin", name)
    made.parent.mkdir(exist_ok=True)
    made.touch(mode=0o600)
    made.write_text(text)
    yield
    made.unlink()


@contextmanager
def drop_in(unit: str, line: str) -> Iterator[None]:
    """Have a line more in a unit, by a file of one's own."""
    made = Path(f"/etc/systemd/system/{unit}.service.d/more.conf")
    made.parent.mkdir()
    made.write_text(f"[Service]\n{line}\n")
    tool("systemctl daemon-reload")
    yield
    shutil.rmtree(made.parent)
    tool("systemctl daemon-reload")


def shown(unit: str, name: str) -> str:
    return tool(f"systemctl show --value -p {name} {unit}").strip()


def status_of(pid: str) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (x.partition(":") for x in lines)}


def is_confined(name: str, program: str) -> None:
    """Fail unless a daemon runs as its own user, with no rights and under a filter.

    Nor may it come to QubesDB, as every other user of a VM may.
    """
    pid = shown(f"ravelin-daemon@{name}", "MainPID")
    status = status_of(pid)
    user = tool(f"id -u ravelin-{name}").strip()
    state = Path(f"/var/lib/ravelin/{name}").stat()

    assert status["Name"] == program[:15]
    assert status["Uid"].split() == [user] * 4
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert (str(state.st_uid), state.st_mode & 0o7777) == (user, 0o700)
    places = Path(f"/proc/{pid}/root{DAEMONS}").iterdir()
    assert [place.name for place in places] == [name]
    # systemd.exec(5) has a directory of its own there, for mounts to come.
    inside = {each.name for each in Path(f"/proc/{pid}/root", "run").iterdir()}
    assert Path(SOCKET).is_socket()
    assert inside <= {"ravelin", "systemd"}

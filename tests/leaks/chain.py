# SPDX-License-Identifier: GPL-2.0-or-later
"""A whole chain, brought up by the real command.

AppVMs behind ``sys-firewall`` behind ``sys-net`` in front of the lab's internet.
"""

import json
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Self

from agent.qubesdb import QubesDb
from controller import namespaces
from controller.admin import Answer, Failure, Request
from controller.client import ask
from controller.platforms.lab import Internet
from controller.platforms.netns import Netns
from controller.service import sweep
from tests.lab.scene import Scene

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0  # seconds; only a failing test waits that long
SO_PEERCRED = 17
COUNTED = re.compile(r'counter packets (\d+) bytes \d+.*comment "([^"]+)"')
RESOLVER = re.compile(r"[0-9a-f.:]+ : ([0-9a-f.:]+)")
AGENTS = (b"netvm", b"firewallvm")

GATEWAYS = """
[domains.sys-net]
personality = "netvm"
uplink = "lab"
[domains.sys-firewall]
personality = "firewall"
netvm = "sys-net"
"""


def appvm(name: str, *rules: str, netvm: str = "sys-firewall") -> str:
    """Return the lines of a client; without rules it may do everything."""
    firewall = f"firewall = {json.dumps(rules)}\n" if rules else ""
    return f'[domains.{name}]\nnetvm = "{netvm}"\n{firewall}'


class Chain:
    """The chain below one runtime directory; every method is done on return."""

    def __init__(self, runtime: Path, policy: str) -> None:
        self.runtime = runtime
        self.internet = Internet(runtime)
        self.socket = runtime / "admin.sock"
        self._policy = runtime / "policy.toml"
        self._policy.write_text(policy)
        self._addresses: dict[str, tuple[IPv4Address, IPv6Address]] = {}

    def up(self) -> None:
        """Start everything that the policy names."""
        self.cli("up", str(self._policy))

    def cli(self, *words: str) -> str:
        """Run the command, which must succeed; return what it prints."""
        begin = ["/usr/bin/python3", "-I", str(ROOT), "controller", "--socket"]
        done = subprocess.run(
            [*begin, str(self.socket), *words],
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ask(self, verb: str, **arguments: str | int | tuple[str, ...] | None) -> Answer:
        """Do what the command does, without a process of its own."""
        reply = ask(self.socket, Request(verb, arguments), lambda _: None)
        assert not isinstance(reply, Failure), reply
        return reply

    def firewall(
        self, domain: str, action: str, *rule: str, number: int | None = None
    ) -> None:
        """Change the rules of a client; they are enforced on return."""
        self.ask("firewall", domain=domain, action=action, rule=rule, number=number)

    def net(self, domain: str) -> Path:
        """Return the namespace of a domain."""
        return self.runtime / "ns" / domain

    def ip(self, domain: str) -> tuple[IPv4Address, IPv6Address]:
        """Return both addresses of a domain."""
        if domain not in self._addresses:
            answer = self.ask("status").data
            assert isinstance(answer, dict)
            for each in answer["domains"]:
                both = IPv4Address(each["ip"]), IPv6Address(each["ip6"])
                self._addresses[each["name"]] = both
        return self._addresses[domain]

    def agent(self, domain: str) -> int:
        """Return the pid of the agent of a domain; LookupError if none runs."""
        for pid in namespaces.processes(self.net(domain)):
            with suppress(FileNotFoundError, ProcessLookupError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if set(AGENTS) & set(words[-2:]):
                    return pid
        raise LookupError(f"{domain} has no agent")

    def kill(self, domain: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send the agent of a domain a signal; if it is deadly, see it end."""
        pid = self.agent(domain)
        with os.fdopen(os.pidfd_open(pid)) as handle:
            os.kill(pid, number)
            if number in (signal.SIGKILL, signal.SIGTERM):
                assert select.select([handle], [], [], PATIENCE)[0]

    def resolvers(self, *addresses: str) -> None:
        """Change what the NetVM's network says of its resolvers."""
        file = Netns(self.runtime).resolv("sys-net") / "resolv.conf"
        text = "".join(f"nameserver {each}\n" for each in addresses)
        if text != file.read_text():
            with Voice(self, "sys-net") as voice:
                file.write_text(text)
                voice.wait()
                while self._asked() != set(addresses):
                    voice.wait()

    def _asked(self) -> set[str]:
        """Return whom the NetVM asks for its clients."""
        lists = (f"list map {version} qubes dns" for version in ("ip", "ip6"))
        texts = (self.run("sys-net", "nft", words) for words in lists)
        return {address for text in texts for address in RESOLVER.findall(text)}

    def crash(self) -> None:
        """Kill the controller; its agents end with it."""
        with socket.socket(socket.AF_UNIX) as peer, ExitStack() as handles:
            peer.connect(str(self.socket))
            whose = peer.getsockopt(socket.SOL_SOCKET, SO_PEERCRED, 12)
            daemon = int(struct.unpack("3i", whose)[0])
            pids = [daemon, self.agent("sys-net"), self.agent("sys-firewall")]
            ends = [handles.enter_context(_handle(pid)) for pid in pids]
            os.kill(daemon, signal.SIGKILL)
            for end in ends:
                assert select.select([end], [], [], PATIENCE)[0]

    def run(self, domain: str, *argv: str, feed: str | None = None) -> str:
        """Run a tool inside a domain, past all confinement; return its output."""
        with namespaces.inside(self.net(domain)):
            done = subprocess.run(
                argv, input=feed, check=False, capture_output=True, text=True
            )
        assert done.returncode == 0, (argv, done.stderr)
        return done.stdout

    def counted(self, domain: str) -> dict[str, int]:
        """Return the packets of each commented counter of a domain's nftables."""
        found: dict[str, int] = {}
        for number, comment in COUNTED.findall(
            self.run(domain, "nft", "list", "ruleset")
        ):
            found[comment] = found.get(comment, 0) + int(number)
        return found

    def scene(self, client: str, other: str) -> Scene:
        """Return where a client's attack on sys-firewall takes place."""
        up, up6 = map(str, self.ip("sys-net"))
        at = self._behind("sys-firewall", client, other)
        return replace(at, uplink=up, uplink6=up6)

    def lan(self, other: str) -> Scene:
        """Return where a neighbour's attack on sys-net takes place."""
        return self._behind("sys-net", "sys-firewall", other)

    def _behind(self, gateway: str, client: str, other: str) -> Scene:
        ends = (self.ip(domain) for domain in (client, gateway, other))
        (ip, ip6), (gate, gate6), (ip_2, ip6_2) = (map(str, both) for both in ends)
        return Scene(
            client=ip,
            client6=ip6,
            gateway=gate,
            gateway6=gate6,
            server="198.51.100.80",
            server6="2001:db8:80::80",
            other=ip_2,
            other6=ip6_2,
        )

    def close(self) -> None:
        """End everything, in whatever state it is."""
        with suppress(AssertionError):
            self.cli("down", "-q")
        sweep(self.runtime)


class Voice:
    """Hears each time that an agent reports its status."""

    def __init__(self, chain: Chain, domain: str) -> None:
        path = str(chain.runtime / "db" / f"{domain}.sock")
        self._db = QubesDb(path, timeout=PATIENCE)
        self._db.watch("/ravelin/status")
        self._db.connect()

    def wait(self, patience: float = PATIENCE) -> str:
        """Return the next status; AssertionError if none comes in time."""
        while not self._db.take_events():
            assert select.select([self._db], [], [], patience)[0], "no status"
        return (self._db.read("/ravelin/status") or b"").decode()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()


@contextmanager
def running(
    *clients: str, gateways: str = GATEWAYS, log_size: str = ""
) -> Iterator[Chain]:
    """Bring a chain up, and remove it with whatever runs in it.

    With a ``log_size``, as of tmpfs(5), the logs are on a disk of their own.
    """
    # Unix sockets have short paths, and agents must get through to theirs.
    runtime = Path(tempfile.mkdtemp(prefix="rv", dir="/run"))
    chain = Chain(runtime, gateways + "".join(clients))
    if log_size:
        (runtime / "log").mkdir()
        options = f"size={log_size}"
        tool = ["mount", "-t", "tmpfs", "-o", options, "logs", str(runtime / "log")]
        subprocess.run(tool, check=True)
    try:
        chain.up()
        yield chain
    finally:
        chain.close()
        if log_size:
            subprocess.run(["umount", "-l", str(runtime / "log")], check=True)
        shutil.rmtree(runtime, onerror=gone)


def gone(_: object, path: str, error: tuple[object, BaseException, object]) -> None:
    """Let the daemon, which ends after its last answer, remove its own files."""
    if not isinstance(error[1], FileNotFoundError):
        raise OSError(f"{path} is left") from error[1]


@contextmanager
def kept(chain: Chain, domain: str) -> Iterator[None]:
    """Put the rules of nftables back afterwards, as they were.

    The agent stands still meanwhile, or it would do so itself.
    """
    before = chain.run(domain, "nft", "list", "ruleset")
    agent = chain.agent(domain)
    os.kill(agent, signal.SIGSTOP)
    try:
        yield
        chain.run(domain, "nft", "-f", "-", feed=f"flush ruleset\n{before}")
    finally:
        os.kill(agent, signal.SIGCONT)


@contextmanager
def _handle(pid: int) -> Iterator[int]:
    handle = os.pidfd_open(pid)
    try:
        yield handle
    finally:
        os.close(handle)

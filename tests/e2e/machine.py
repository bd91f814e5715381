# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine of the tests' own, and Ravelin on it by its real command line.

The machine is an outer network namespace that plays the host, with a /run, an
/etc and a /sys of its own; this process is in it meanwhile.  So all that must be
as before can be compared, whatever else this machine is doing.
"""

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import dns.exception
import dns.message
import dns.query

from agent.berth import DAEMONS, END
from controller import namespaces
from controller.lab.probe import attempt
from controller.platforms.lab import Internet
from controller.syscalls import mount
from tests.controller.own_machine import own_machine
from tests.lab.ends import MARKER
from tests.lab.sniffer import EVERY, Packet, Sniffer

ROOT = Path(__file__).parents[2]
RAVELIN = str(ROOT / "bin" / "ravelin")
HOME = (ROOT / "examples" / "home.toml").read_text()
RUNTIME = Path("/run/rv")
FELL = "ended, exit code 1"  # of an agent that nobody told to (`agent.start`)
MARK = "RAVELIN_TEST"  # in the environment of all that a machine starts
# An emulated processor says how many times slower it is.
PACE = float(os.environ.get("PACE", "1"))
PATIENCE = 60.0 * PACE  # seconds; only a failing test waits that long
ANSWER = 5.0 * PACE  # seconds for one; where none must come, a test waits that long
AGAIN = 2.5 * PACE  # seconds until a name is asked for once more

WEB4, WEB6 = "198.51.100.80", "2001:db8:80::80"
FORBIDDEN4, FORBIDDEN6 = "198.51.100.81", "2001:db8:80::81"
INTRANET = "10.200.0.10"
RESOLVER4 = "192.0.2.53"
VIRTUAL4, VIRTUAL6 = "10.139.1.1", "fd09:24ef:4179::a8b:1"
ECHO, HTTP, HTTPS, UDP = 7, 80, 443, 4433

TRAFFIC = ("received", "sent", "receiving", "sending")
T = TypeVar("T")


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    status: int
    out: str
    err: str


class Machine:
    """The command ``ravelin`` on a machine; ``policy`` is the file it is given."""

    def __init__(self, directory: Path, policy: str = HOME) -> None:
        self.command = RAVELIN
        self.runtime = RUNTIME
        self.policy = directory / "policy.toml"
        self.policy.write_text(policy)
        self.internet = Internet(RUNTIME)
        self.mark = f"{MARK}={directory.name}"
        self._streams: list[Stream] = []
        self._directory = directory

    # What a user does.

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start the command and go on."""
        name, _, value = self.mark.partition("=")
        return subprocess.Popen(
            [self.command, "--socket", str(RUNTIME / "admin.sock"), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {name: value},
        )

    def ravelin(self, *words: str, within: float = PATIENCE * 2) -> Done:
        """Give the command."""
        process = self.start(*words)
        try:
            out, err = process.communicate(timeout=within)
        finally:
            process.kill()
        return Done(process.returncode, out, err)

    def does(self, *words: str) -> str:
        """Give a command that succeeds, and return what it prints."""
        done = self.ravelin(*words)
        assert done.status == 0, (words, done)
        return done.out

    def up(self) -> None:
        """Bring the policy file up."""
        self.does("up", str(self.policy))

    def run(self, domain: str, *command: str) -> Done:
        """Run a program in a domain."""
        return self.ravelin("run", domain, "--", *command)

    def curl(self, domain: str, url: str) -> Done:
        """Fetch a page in a domain, with the certificate of the lab."""
        trusted = self._directory / "certificate.pem"
        trusted.write_bytes(self.internet.certificate.read_bytes())
        words = ("--silent", "--show-error", "--max-time", "20", "--cacert")
        return self.run(domain, "curl", *words, str(trusted), url)

    def curl_plain(self, domain: str, url: str) -> Done:
        """Fetch a page in a domain, with no certificate."""
        return self.run(domain, "curl", "--silent", "--max-time", "20", url)

    def crash(self) -> list[int]:
        """Kill the daemon; return the agents, which end with it."""
        nets = (path.name for path in (RUNTIME / "db").glob("*.sock"))
        agents = [self.agent(name.removesuffix(".sock")) for name in nets]
        end(self.daemon())
        return agents

    def status(self) -> dict[str, dict[str, object]]:
        """Return what ``status --json`` says of each domain, but for its traffic."""
        rows = json.loads(self.ravelin("--json", "status").out)["domains"]
        return {
            row["name"]: {key: row[key] for key in row if key not in TRAFFIC}
            for row in rows
        }

    def fallen(self) -> list[str]:
        """Return each end of an agent that nobody wished, of the last 1000 events."""
        events = json.loads(self.ravelin("--json", "log").out)["events"]
        agents = (each for each in events if "/" not in each["domain"])
        return [str(each) for each in agents if FELL in each["text"]]

    # What a judge sees, without the product's help.

    def net(self, domain: str) -> Path:
        """Return the file of a domain's namespace."""
        return RUNTIME / "ns" / domain

    def tries(self, domain: str, proto: str, address: str, port: int = 0) -> str:
        """Try a destination from a domain; return the probe's word."""
        with namespaces.inside(self.net(domain)):
            return attempt(proto, address, port)

    def reaches(
        self, domain: str, address: str, port: int = HTTP, proto: str = "tcp"
    ) -> bool:
        """Say whether one attempt gets through."""
        return self.tries(domain, proto, address, port) == "reached"

    def taken_for(self, domain: str, address: str = WEB4, within: float = 1.0) -> str:
        """Return whom a web server takes a domain for, nothing if not soon.

        It is connected ``within`` seconds, and then has a second.  It is what
        ``ravelin run DOMAIN -- curl`` tells, without three processes.
        """
        try:
            with namespaces.inside(self.net(domain)):
                opened = socket.create_connection((address, HTTP), timeout=within)
            with opened:
                opened.settimeout(1)
                opened.sendall(b"GET / HTTP/1.0\r\n\r\n")
                page = opened.makefile("rb").read().decode()
        except OSError:
            return ""
        return [*page.partition("\r\n\r\n")[2].split(), "", ""][1]

    def stream(self, domain: str, address: str = WEB4) -> "Stream":
        """Open a connection to the echo of the lab, until `hang_up`."""
        with namespaces.inside(self.net(domain)):
            opened = socket.create_connection((address, ECHO), timeout=PATIENCE)
        self._streams.append(Stream(opened))
        return self._streams[-1]

    def is_cut(self, stream: "Stream", gateway: str) -> bool:
        """Say whether a gateway lets nothing of a connection through that still sends.

        What it was given it has dealt with by the end of the capture.
        """
        with Sniffer(self.net(gateway), EVERY) as seen:
            stream.send(MARKER)
            seen.wait(is_of_client, PATIENCE)
        return not any(packet.outgoing for packet in seen.marked)

    def hang_up(self) -> None:
        """Close every connection."""
        while self._streams:
            self._streams.pop().close()

    def answers(self, domain: str, name: str, server: str = VIRTUAL4) -> set[str]:
        """Return the IPv4 addresses that a domain is told, none if not in time.

        It asks again now and then, as every resolver does.
        """
        question = dns.message.make_query(name, "A")
        deadline = time.monotonic() + ANSWER
        with namespaces.inside(self.net(domain)):
            while time.monotonic() < deadline:
                with suppress(dns.exception.Timeout):
                    reply = dns.query.udp(question, server, timeout=AGAIN)
                    return {str(each) for found in reply.answer for each in found}
        return set()

    def tool(self, domain: str, *argv: str) -> str:
        """Return what a tool of the judge prints in the network of a domain."""
        with namespaces.inside(self.net(domain)):
            done = subprocess.run(argv, check=True, capture_output=True, text=True)
        return done.stdout

    def processes(self, *domains: str) -> tuple[int, ...]:
        """Return the processes in some domains."""
        return tuple(
            p for name in domains for p in namespaces.processes(self.net(name))
        )

    def agent(self, domain: str) -> int:
        """Return the pid of a domain's agent, once there is one."""

        def found() -> list[int]:
            words = {pid: command_line(pid)[-1:] for pid in self.processes(domain)}
            return [p for p, x in words.items() if x in ([b"netvm"], [b"firewallvm"])]

        return until(found)[0]

    def proof(self) -> object:
        """Return what the last proof found, None before the first one."""
        found = json.loads(self.ravelin("--json", "status").out)["proof"]
        return found and found["state"]

    def daemon(self) -> int:
        """Return the pid of the daemon, of which there is one."""

        def only() -> list[int]:
            found = [p for p in pids() if b"serve" in command_line(p)]
            ours = [p for p in found if self._is_ours(p)]
            # What it starts has its words too, until it is another program.
            return ours if len(ours) == 1 else []

        return until(only)[0]

    def left(self) -> list[tuple[int, bytes]]:
        """Return all processes that came of this machine's commands."""
        nets = set()
        for path in (RUNTIME / "ns").glob("*"):
            with suppress(FileNotFoundError):
                nets.add(path.stat().st_ino)
        return [
            (pid, b" ".join(command_line(pid)))
            for pid in pids()
            if self._is_ours(pid) or net_of(pid) in nets
        ]

    def host(self) -> dict[str, list[str]]:
        """Return all of the host that a command could have changed, line by line."""
        tools = (
            "ip -d link",
            "ip addr",
            "ip route show table all",
            "ip -6 route show table all",
            "ip rule",
            "nft list ruleset",
            r"sysctl -a --pattern ^net\.ipv[46]\.(conf|ip_forward)",
        )
        texts = {x: shown(x) for x in tools}
        texts["mounts"] = mounts()
        texts["resolv.conf"] = Path("/etc/resolv.conf").read_text()
        return {name: text.splitlines() for name, text in texts.items()}

    def sweep(self) -> None:
        """End whatever a failed test has left."""
        for pid, _ in self.left():
            end(pid)
        for path in (RUNTIME / "ns").glob("*"):
            namespaces.remove(path)
        self.internet.down()

    def _is_ours(self, pid: int) -> bool:
        with suppress(OSError):
            words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            return self.mark.encode() in words
        return False


class Stream:
    """A TCP connection to the echo of the lab."""

    def __init__(self, opened: socket.socket) -> None:
        self._socket = opened

    def send(self, text: bytes) -> None:
        """Send something, and wait for nothing."""
        self._socket.sendall(text)

    def lives(self) -> bool:
        """Say whether an echo comes back."""
        self._socket.settimeout(ANSWER)
        try:
            self._socket.sendall(b"x")
            return self._socket.recv(1) == b"x"
        except OSError:
            return False

    def close(self) -> None:
        """Close it."""
        self._socket.close()


def is_of_client(packet: Packet) -> bool:
    """Whether it is a probe that a client has sent to its gateway."""
    return packet.marked and not packet.outgoing and packet.interface.startswith("vif")


def until(
    found: Callable[[], T],
    within: float = PATIENCE,
    told: Callable[[], object] = str,
) -> T:
    """Look again and again until there is something, and return it.

    A failure says what was there, and what it is ``told`` then.
    """
    deadline = time.monotonic() + within
    while not (result := found()):
        assert time.monotonic() < deadline, f"{result!r} in {within} s {told()}"
    return result


def becomes(found: Callable[[], T], wanted: T, within: float = PATIENCE) -> None:
    """Look again and again until it is so; a failure tells what it is instead."""
    deadline = time.monotonic() + within
    while (last := found()) != wanted:
        assert time.monotonic() < deadline, f"{last!r}, not {wanted!r}"


def pids() -> Iterator[int]:
    return (int(path.name) for path in Path("/proc").glob("[1-9]*"))


def shown(command: str) -> str:
    return subprocess.check_output(command.split(), text=True)


def mounts() -> str:
    """Return what is mounted in our directories; others come and go elsewhere."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    ours = (f"{RUNTIME}/", "/etc")
    return "\n".join(line for line in lines if line.split()[1].startswith(ours))


def command_line(pid: int) -> list[bytes]:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
    return []


def net_of(pid: int) -> int:
    with suppress(OSError):
        return Path(f"/proc/{pid}/ns/net").stat().st_ino
    return 0


@contextmanager
def stilled(pid: int) -> Iterator[None]:
    """Have a process do nothing; one that the controller misses (10 s) it ends."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def end(pid: int) -> None:
    """Kill a process and return when it is gone."""
    with suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        assert select.select([handle], [], [], PATIENCE)[0]
        os.close(handle)


def hang(pid: int, name: str) -> None:
    """Stop a daemon, and end it as its agent does once it notices: by its rights."""
    fifo = f"{DAEMONS}/{name}/{END}"
    with (
        suppress(ProcessLookupError, FileNotFoundError),
        os.fdopen(os.pidfd_open(pid)) as handle,
    ):
        agent = Path(f"/proc/{pid}/root{fifo}").stat().st_gid
        argv = ["nsenter", f"--mount=/proc/{pid}/ns/mnt", "setpriv"]
        argv += [f"--reuid={agent}", f"--regid={agent}", "--clear-groups"]
        argv += ["--inh-caps=-all", "timeout", "5", "sh", "-c", f"echo > {fifo}"]
        os.kill(pid, signal.SIGSTOP)
        # It may be one that somebody else ends at this moment.
        done = subprocess.run(argv, check=False, capture_output=True)
        assert select.select([handle], [], [], PATIENCE)[0], done


@contextmanager
def host(setup: Sequence[str] = ()) -> Iterator[Path]:
    """Be on a machine of our own; ``setup`` are lines for ip(8).

    Gives a directory that every domain sees too.
    """
    directory = Path(tempfile.mkdtemp(prefix="rve"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory)
        net = directory / "host"
        namespaces.create(net)
        stack.callback(namespaces.remove, net)
        stack.enter_context(namespaces.inside(net))
        stack.enter_context(own_machine())
        mount("sysfs", "/sys", "sysfs", 0)
        Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
        for line in ("link set lo up", *setup):
            subprocess.run(["ip", *line.split()], check=True)
        yield directory
    assert str(directory) not in Path("/proc/self/mounts").read_text()


@contextmanager
def machine(policy: str = HOME, setup: Sequence[str] = ()) -> Iterator[Machine]:
    """Give a machine on which nothing is up."""
    with host(setup) as directory:
        made = Machine(directory, policy)
        try:
            yield made
        finally:
            made.hang_up()
            made.sweep()

# SPDX-License-Identifier: GPL-2.0-or-later
"""A chain with a TorVM, brought up by the real command, before a private Tor network.

``anon`` and ``anon2`` are clients of ``sys-tor`` behind ``sys-net``; ``picky`` may
only ask for names and fetch one site.
"""

import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

import stem
import stem.connection
import stem.control

from agent.keys import STATUS, TROUBLE
from agent.qubesdb import QubesDb
from controller import namespaces
from controller.lab.tor_network import NUMBERS, OR_PORT, Network, TorNetwork
from tests.e2e.machine import stilled, until
from tests.lab.sniffer import EVERY, TCP, Packet, Sniffer
from tests.leaks.chain import PATIENCE, Chain, gone

WEB, WEB6, OTHER = "198.51.100.80", "2001:db8:80::80", "198.51.100.81"
ATTEMPT = 5.0  # seconds until another circuit is tried
CIRCUITS = 150.0  # seconds; only a failing test waits that long
FELL = "ended, exit code 1"  # `agent.start`
NET = """
[domains.sys-net]
personality = "netvm"
uplink = "lab"
"""
TOR = """
[domains.sys-tor]
personality = "tor"
netvm = "sys-net"
network = "tor.network"
{more}
[domains.anon]
netvm = "sys-tor"
[domains.anon2]
netvm = "sys-tor"
[domains.picky]
netvm = "sys-tor"
firewall = [
  "accept specialtarget=dns",
  "accept dsthost=www.example.com proto=tcp dstports=80",
]
"""
Address = IPv4Address | IPv6Address
Place = tuple[Address, int]  # an address and a TCP port
BRIDGE: Place = (ip_address("203.0.113.20"), 4443)
RELAYS = frozenset(
    (ip_address(f"203.0.113.{number}"), port)
    for number in NUMBERS.values()
    for port in (OR_PORT, 7000)
)


class TorChain(Chain):
    """The chain; ``network`` is what is to be known of its Tor network."""

    def __init__(self, runtime: Path) -> None:
        super().__init__(runtime, NET)
        self.up()
        self.tors = TorNetwork(self.internet.hosts)
        self.network: Network = self.tors.up()
        self.secret("tor.network", self.network.options)
        self.secret("tor.bridges", f"{self.network.bridge}\n")
        self.become()

    def become(self, *more: str, state: str = "up") -> None:
        """Bring the policy up with more lines for sys-tor, until it is in a state."""
        self._more = more
        policy = self.runtime / "policy.toml"
        policy.write_text(NET + TOR.format(more="\n".join(more)))
        self.cli("up", str(policy))
        self.until(state)

    def plain(self) -> None:
        """Be without more lines, and up."""
        if self._more:
            self.become()
        self.until("up")

    def secret(self, name: str, text: str) -> None:
        """Write a file that the policy may name."""
        file = self.runtime / name
        file.write_text(text)
        file.chmod(0o600)

    def tors_run(self, *argv: str) -> None:
        """Run a tool where the relays are."""
        with namespaces.inside(self.tors.net):
            subprocess.run(argv, check=True, capture_output=True)

    def said(self) -> str:
        """Return the state of sys-tor."""
        with _listening(self) as db:
            return _state(db)

    def blames(self, words: str) -> None:
        """Wait until sys-tor says that this keeps it from working."""
        with _listening(self, TROUBLE) as db:
            while (last := (db.read(TROUBLE) or b"").decode()) != words:
                while not db.take_events():
                    ready = select.select([db], [], [], CIRCUITS)[0]
                    assert ready, f"sys-tor blames {last!r}, not {words!r}"

    def until(self, state: str) -> None:
        """Wait until sys-tor is in a state."""
        with _listening(self) as db:
            while _state(db) != state:
                while not db.take_events():
                    ready = select.select([db], [], [], CIRCUITS)[0]
                    assert ready, f"sys-tor is {_state(db)}, not {state}"

    def process(self, name: str) -> int:
        """Return the pid of a program in sys-tor; LookupError if none runs."""
        for pid in namespaces.processes(self.net("sys-tor")):
            with suppress(FileNotFoundError, ProcessLookupError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if name.encode() in (words[0], *words[-3:]):
                    return pid
        raise LookupError(f"sys-tor has no {name}")

    def running(self, name: str) -> int:
        """Return the pid of a program in sys-tor, once it runs."""
        return until(lambda: self._pid(name), within=CIRCUITS)

    def end(self, name: str) -> None:
        """Kill a program in sys-tor, see it end and another one come."""
        pid = self.running(name)
        # It may be one that was killed a moment ago, and is gone by now.
        with suppress(ProcessLookupError), os.fdopen(os.pidfd_open(pid)) as handle:
            os.kill(pid, signal.SIGKILL)
            assert select.select([handle], [], [], PATIENCE)[0]
        self.running(name)

    def runs(self, name: str) -> bool:
        """Whether a program runs in sys-tor."""
        return self._pid(name) > 0

    def _pid(self, name: str) -> int:
        with suppress(LookupError):
            return self.process(name)
        return 0

    @contextmanager
    def stopped(self, name: str) -> Iterator[None]:
        """Have a program in sys-tor stand still meanwhile."""
        with stilled(self.process(name)):
            yield

    def fetch(
        self,
        client: str,
        address: str = WEB,
        port: int = 80,
        *,
        patience: float = PATIENCE,
    ) -> str:
        """Fetch a page from inside a client; return who the site saw, or nothing."""
        try:
            with namespaces.inside(self.net(client)):
                made = socket.create_connection((address, port), timeout=patience)
            with made:
                made.sendall(b"GET /ip HTTP/1.0\r\nHost: www.example.com\r\n\r\n")
                answer = made.makefile("rb").read()
        except OSError:
            return ""
        return answer.rpartition(b"\r\n\r\n")[2].decode().strip()

    def through(self, client: str, address: str = WEB) -> str:
        """Fetch until it is there: a circuit may end while it is used."""
        return until(
            lambda: self.fetch(client, address, patience=ATTEMPT),
            CIRCUITS,
            lambda: f"sys-tor is {self.said()}, and there was {self.ask('log').data}",
        )

    def fallen(self) -> list[object]:
        """Return each end of an agent that nobody wished, of the last 1000 events."""
        told = self.ask("log").data
        assert isinstance(told, dict)
        agents = (each for each in told["events"] if "/" not in each["domain"])
        return [each for each in agents if FELL in each["text"]]

    @property
    def exits(self) -> frozenset[str]:
        """The addresses that a site may see."""
        return frozenset(map(str, self.network.exits))

    @contextmanager
    def watched(self) -> Iterator["Streams"]:
        """Hear from tor itself which circuit each stream is on."""
        (path,) = (self.runtime / "daemon/sys-tor/tor").glob("*.control")
        with stem.control.Controller.from_socket_file(str(path)) as controller:
            # tor names its cookie as it is seen inside.
            greeting = stem.connection.get_protocolinfo(controller)
            greeting.cookie_path = f"{path}.cookie"
            controller.authenticate(protocolinfo_response=greeting)
            yield Streams(self, controller)

    @contextmanager
    def uplink(self, *more: Place) -> Iterator["Uplink"]:
        """See all that comes out of sys-tor's uplink; ``more`` may be talked to."""
        with Sniffer(self.net("sys-net"), EVERY) as sniffer:
            made = Uplink(sniffer, frozenset(self.ip("sys-tor")), RELAYS | {*more})
            yield made

    def agent(self, domain: str) -> int:
        """Return the pid of the agent of a domain; LookupError if none runs."""
        return self.process("torvm") if domain == "sys-tor" else super().agent(domain)

    def close(self) -> None:
        """End everything."""
        self.tors.down()
        super().close()


@contextmanager
def tor_chain() -> Iterator[TorChain]:
    """Have a chain that is up, and whatever becomes of it, end everything."""
    # Unix sockets have short paths.
    runtime = Path(tempfile.mkdtemp(prefix="rv", dir="/run"))
    chain = TorChain.__new__(TorChain)
    try:
        chain.__init__(runtime)  # type: ignore[misc]
        yield chain
    finally:
        chain.close()
        shutil.rmtree(runtime, onerror=gone)


class Uplink:
    """What came out of sys-tor, and what of it nobody may send."""

    def __init__(
        self, sniffer: Sniffer, own: frozenset[Address], places: frozenset[Place]
    ) -> None:
        self._sniffer = sniffer
        self._own = own
        self._places = places

    @property
    def packets(self) -> list[Packet]:
        """All that left, of whatever kind."""
        return [
            packet
            for packet in self._sniffer.packets
            if not packet.outgoing and packet.interface.startswith("vif")
        ]

    @property
    def leaked(self) -> list[Packet]:
        """What is neither tor's TCP to a relay nor keeps the link itself."""
        return [packet for packet in self.packets if not self._allowed(packet)]

    def _allowed(self, packet: Packet) -> bool:
        if packet.source not in self._own:
            return False
        to_relay = (packet.destination, packet.port) in self._places
        return packet.neighbourly or (packet.protocol == TCP and to_relay)


class Streams:
    """The circuits that streams of each client were seen on.

    Two circuits may carry one stream (conflux), so their sets are compared.
    """

    def __init__(self, chain: TorChain, controller: Any) -> None:  # noqa: ANN401
        self.controller = controller
        self._chain = chain
        self._sources: dict[str, str] = {}
        self._seen: dict[str, set[str]] = {}
        self._told: set[str] = set()
        self._sets: dict[str, str] = {}
        self._learn()
        controller.add_event_listener(self._stream, stem.control.EventType.STREAM)
        controller.add_event_listener(self._circuit, stem.control.EventType.CIRC)

    def of(self, client: str) -> frozenset[str]:
        """Return the circuits of a client's streams that were not told before."""
        self._learn()
        addresses = set(map(str, self._chain.ip(client)))
        mine = {s for s in self._seen if self._sources[s] in addresses} - self._told
        # The end of a stream is often said when the next one is asked for.
        self._told |= mine
        circuits = {circuit for stream in mine for circuit in self._seen[stream]}
        return frozenset(self._sets.get(circuit, circuit) for circuit in circuits)

    def _stream(self, event: Any) -> None:  # noqa: ANN401
        if event.source_addr:
            self._sources[event.id] = event.source_address.strip("[]")
        # Only TransPort streams: names go by another listener, and so circuit.
        if event.circ_id and event.id in self._sources:
            self._seen.setdefault(event.id, set()).add(event.circ_id)

    def _circuit(self, event: Any) -> None:  # noqa: ANN401
        if "CONFLUX_ID" in event.keyword_args:
            self._sets[event.id] = event.keyword_args["CONFLUX_ID"]

    def _learn(self) -> None:
        for circuit in self.controller.get_circuits():
            self._circuit(circuit)
        # What tor said before that answer was read before it, but stem tells it
        # in a thread of its own, which may be behind.
        self.controller._event_queue.join()


def _state(db: QubesDb) -> str:
    words = (db.read(STATUS) or b"").decode().split()
    return dict(word.partition("=")[::2] for word in words).get("state", "")


@contextmanager
def _listening(chain: Chain, key: str = STATUS) -> Iterator[QubesDb]:
    db = QubesDb(str(chain.runtime / "db/sys-tor.sock"), timeout=PATIENCE)
    db.watch(key)
    db.connect()
    try:
        yield db
    finally:
        db.close()

# SPDX-License-Identifier: GPL-2.0-or-later
"""A platform without a kernel, with agents that speak real QubesDB."""

import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from selectors import DefaultSelector
from typing import NoReturn

from agent.qubesdb import Disconnected, QubesDb
from controller.admin import Json
from controller.databases import Databases
from controller.deploy import Deployment
from controller.domains import Domain, Domains, HostUplink, LabUplink, Nic, Personality
from controller.ports import (
    AgentStart,
    Command,
    DaemonStart,
    Link,
    PlatformError,
    WayOut,
)
from controller.prover import Ticket
from controller.steps import Reply, Steps, Until, Work
from controller.supervise import Supervisor
from controller.tasks import Task
from rules.model import Policy
from rules.parse import parse_text

DEADLINE = 20.0  # seconds
RULES, VIFS = "/qubes-firewall/", "/ravelin/vif/"


def policy(*lines: str) -> Policy:
    return Policy(tuple(parse_text(line, now=0) for line in lines))


def home(*more: Domain, **changed: Domain | None) -> Domains:
    """Return a NetVM, a firewall and an AppVM, with some of them replaced."""
    known: dict[str, Domain | None] = {
        "net": Domain("net", 1, personality=Personality.NETVM, uplink=LabUplink()),
        "fw": Domain("fw", 2, personality=Personality.FIREWALL, netvm="net"),
        "work": Domain("work", 5, netvm="fw", policy=policy("accept proto=tcp")),
    }
    wanted = {**known, **changed, **{d.name: d for d in more}}
    return Domains({name: d for name, d in wanted.items() if d is not None})


class CountingSelector(DefaultSelector):
    """Remembers how long each call of `select` was ready to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.patience: list[float | None] = []

    def select(self, timeout: float | None = None):  # type: ignore[no-untyped-def]  # noqa: ANN201
        self.patience.append(timeout)
        return super().select(timeout)


@dataclass
class Manners:
    """How the agents of a domain behave."""

    ends: str = ""  # instead of becoming ready, with these last words
    silent: bool = False  # it never says READY=1
    waiting: int = 0  # names it has not resolved
    state: str = "up"
    errors: dict[str, str] = field(default_factory=dict)  # by client address


class FakeAgent:
    """A process that enforces nothing and says what an agent says."""

    def __init__(self, start: AgentStart, manners: Manners) -> None:
        self.start, self.manners = start, manners
        self.pidfd, self._alive = os.pipe()
        self.notify, self._mouth = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._stop, self._ear = socket.socketpair()
        self._db = QubesDb(str(start.qubesdb))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def kill(self, _number: int) -> None:
        with suppress(OSError):
            self._stop.send(b"!")
        # A signal ends a process that waits for an answer, too.
        if self._db.fileno() >= 0:
            with (
                suppress(OSError),
                socket.socket(fileno=os.dup(self._db.fileno())) as s,
            ):
                s.shutdown(socket.SHUT_RDWR)

    def see_another_uplink(self) -> None:
        """Have it look at its links, which it does by itself."""
        with suppress(OSError):
            self._stop.send(b"?")

    def trim_log(self) -> None:
        pass

    def finish(self) -> str:
        self.kill(9)
        self._thread.join()
        os.close(self.pidfd)
        for end in (self.notify, self._mouth, self._stop, self._ear):
            end.close()
        return f"exit code 1: {self.manners.ends}"

    def _run(self) -> None:
        db = self._db
        try:
            if not self.manners.ends:
                with suppress(Disconnected):
                    self._converse(db)
        finally:
            db.close()
            os.close(self._alive)

    def _converse(self, db: QubesDb) -> None:
        db.watch(RULES)
        db.watch(VIFS)
        db.connect()
        self._say(db, {path for path in db.multiread(RULES) if path.count("/") == 2})
        if not self.manners.silent:
            self._mouth.send(b"READY=1")
        while True:
            events = db.take_events()
            if events:
                self._say(db, {path for path in events if path.count("/") == 2})
                continue
            if self._ear in select.select([db, self._ear], [], [])[0]:
                if b"!" in self._ear.recv(64):
                    return
                self._say(db, set())

    def _say(self, db: QubesDb, commits: set[str]) -> None:
        for address, why in self.manners.errors.items():
            db.write(f"/ravelin/error/{address}", why.encode())
        clients = len(db.list(VIFS))
        words = f"generation=1 hash={'0' * 16} state={self.manners.state}"
        words += f" clients={clients} waiting={self.manners.waiting}"
        db.write("/ravelin/status", words.encode())
        for path in commits:
            db.write(f"/qubes-firewall-handled/{path.removeprefix(RULES)}", b"1")


class FakeDaemon:
    """A launcher that waits for ever."""

    notify = None

    def __init__(self, start: DaemonStart) -> None:
        self.start = start
        self.pidfd, self._alive = os.pipe()

    def kill(self, _number: int) -> None:
        if self._alive >= 0:
            os.close(self._alive)
            self._alive = -1

    def trim_log(self) -> None:
        pass

    def finish(self) -> str:
        self.kill(9)
        os.close(self.pidfd)
        return "SIGKILL: nothing"


@dataclass
class FakePlatform:
    """Remembers what it was told; ``fails`` has what goes wrong once."""

    said: list[str] = field(default_factory=list)
    fails: set[str] = field(default_factory=set)
    there: set[str] = field(default_factory=set)
    cables: dict[str, Link] = field(default_factory=dict)
    agents: dict[str, FakeAgent] = field(default_factory=dict)
    manners: dict[str, Manners] = field(default_factory=dict)
    starts: list[AgentStart] = field(default_factory=list)
    bytes: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)
    daemons: dict[tuple[str, str], "FakeDaemon"] = field(default_factory=dict)
    somebody: set[int] = field(default_factory=set)
    on_attach: Callable[[Link], None] = lambda _: None

    def _do(self, what: str) -> None:
        if what in self.fails:
            self.fails.discard(what)
            raise PlatformError(f"cannot {what}")
        self.said.append(what)

    def start(self, name: str) -> None:
        self._do(f"start {name}")
        self.there.add(name)

    def stop(self, name: str) -> None:
        self._do(f"stop {name}")
        self.vanish(name)

    def vanish(self, name: str) -> None:
        """End a domain and its links, as the kernel does with a namespace."""
        self.there.discard(name)
        ends = self.cables.items()
        self.cables = {c: k for c, k in ends if name not in (c, k.provider)}

    def exists(self, name: str) -> bool:
        return name in self.there

    def attach(self, link: Link) -> None:
        self._do(f"attach {link.client} to {link.provider}")
        assert {link.client, link.provider} <= self.there
        vifs = [known.vif for known in self.cables.values()]
        assert link.client in self.cables or link.vif not in vifs
        self.on_attach(link)
        self.cables[link.client] = link
        if link.client in self.agents:
            self.agents[link.client].see_another_uplink()

    def detach(self, client: str) -> None:
        self._do(f"detach {client}")
        self.cables.pop(client, None)

    def counters(self, name: str) -> Mapping[str, tuple[int, int]]:
        return self.bytes.get(name, {})

    def unused(self, numbers: Iterable[int]) -> int:
        return next(number for number in numbers if number not in self.somebody)

    def spawn_agent(self, start: AgentStart) -> FakeAgent:
        self._do(f"agent {start.domain}")
        self.starts.append(start)
        manners = self.manners.setdefault(start.domain, Manners())
        self.agents[start.domain] = FakeAgent(start, manners)
        return self.agents[start.domain]

    def spawn_daemon(self, start: DaemonStart) -> "FakeDaemon":
        self._do(f"daemon {start.name} of {start.domain}")
        self.daemons[start.domain, start.name] = FakeDaemon(start)
        return self.daemons[start.domain, start.name]

    def run(self, name: str, command: Command) -> NoReturn:
        raise AssertionError(name, command)


@dataclass
class FakeUplink:
    """An uplink that only says so."""

    platform: FakePlatform
    notes: tuple[str, ...] = ()

    def attach(self, domain: str) -> WayOut:
        self.platform._do(f"uplink {domain}")
        return WayOut("eth0", ("192.0.2.53",), self.notes)

    def detach(self, domain: str) -> None:
        self.platform._do(f"no uplink {domain}")


@dataclass
class FakeProver:
    """Whoever proves, with answers of the test's own; the tasks it was given."""

    answer: Json = None
    failed: str | None = "nobody proves anything here"
    tasks: list[Task] = field(default_factory=list)

    def ask(self, task: Task) -> Ticket:
        self.tasks.append(task)
        return Ticket(task, self.answer, None if self.answer else self.failed)

    def next_deadline(self) -> None:
        return None

    def tick(self) -> None:
        pass

    def close(self) -> None:
        pass


class Blind:
    """A watcher that sees nothing."""

    def look(self, *, busy: bool) -> None:
        pass

    def deadline(self) -> None:
        return None

    def close(self) -> None:
        pass


@dataclass
class World:
    """Everything the controller has, around a fake platform."""

    runtime: Path
    selector: CountingSelector = field(default_factory=CountingSelector)
    platform: FakePlatform = field(default_factory=FakePlatform)
    steps: list[str] = field(default_factory=list)
    uplink: FakeUplink = field(init=False)
    supervisor: Supervisor = field(init=False)
    databases: Databases = field(init=False)
    deployment: Deployment = field(init=False)

    def __post_init__(self) -> None:
        (self.runtime / "db").mkdir(exist_ok=True)
        self.uplink = FakeUplink(self.platform)
        self.supervisor = Supervisor(self.selector, time.monotonic)
        self.databases = Databases(self.selector, self.runtime / "db")
        self.deployment = Deployment(
            self.platform, self._way_out, self.databases, self.supervisor
        )

    def _way_out(self, _uplink: HostUplink | LabUplink | Nic) -> FakeUplink:
        return self.uplink

    def turn(self, patience: float = 0.0) -> None:
        deadline = self.supervisor.next_deadline()
        if deadline is not None:
            patience = max(0.0, min(patience, deadline - time.monotonic()))
        for key, mask in self.selector.select(patience):
            key.data(mask)
        self.supervisor.tick()

    def until(self, done: Callable[[], bool]) -> None:
        """Serve until something is true, or fail."""
        deadline = time.monotonic() + DEADLINE
        while not done():
            assert time.monotonic() < deadline, self.deployment.waiting()
            self.turn(deadline - time.monotonic())

    def do(self, steps: Steps) -> None:
        """Take every step, as the daemon does; return what the platform was told."""
        for step in steps:
            match step:
                case str():
                    self.steps.append(step)
                case Until():
                    self.steps.append(f"wait for {step.what}")
                    self.until(step.done)

    def carry_out(self, work: Work, *, patient: bool = True) -> Reply:
        """Do what the daemon does with a request; return the answer."""
        try:
            step = next(work)
            while True:
                match step:
                    case str():
                        self.steps.append(step)
                        step = next(work)
                    case Until() if patient:
                        self.until(step.done)
                        step = next(work)
                    case Until():
                        step = work.throw(TimeoutError(step.what))
        except StopIteration as end:
            reply: Reply = end.value
            return reply

    def become(self, wanted: Domains, **words: frozenset[str]) -> list[str]:
        """Return what the platform was told on the way."""
        self.platform.said.clear()
        self.steps.clear()
        self.do(self.deployment.become(wanted, **words))
        return list(self.platform.said)

    def contents(self, name: str) -> Mapping[str, bytes]:
        """Return the keys of a domain's QubesDB, as they are."""
        store = self.databases._open[name].store
        return {key: store.read(key) or b"" for key in store.keys("")}

    def close(self) -> None:
        for name in self.databases.names():
            self.databases.close(name)
        self.supervisor.close()
        assert not self.selector.get_map()
        self.selector.close()


@contextmanager
def a_world(runtime: Path) -> Iterator[World]:
    world = World(runtime)
    try:
        yield world
    finally:
        world.close()

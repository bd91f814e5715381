# SPDX-License-Identifier: GPL-2.0-or-later
"""dom0 of one gateway: a process that serves its QubesDB and starts its agent.

A process of its own, so what it does is not counted as the agent's, and so the
moment of a write and of its answer are read from one clock by one program.
"""

import multiprocessing
import re
import resource
import select
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from selectors import EVENT_READ, DefaultSelector
from typing import Any

from controller.platforms.netns import Netns
from controller.ports import AgentStart, Process
from controller.qubesdb_server import QubesDbServer
from controller.qubesdb_store import Store

Writes = Iterable[tuple[str, bytes | None]]
"""Paths and their values; None removes."""

HANDLED = "/qubes-firewall-handled/"
STATUS = "/ravelin/status"
PATIENCE = 120.0  # seconds


@dataclass(slots=True)
class _Serving:
    platform: Netns
    start: AgentStart
    pipe: Connection
    server: QubesDbServer
    selector: DefaultSelector
    said: dict[str, bytes]
    waiting: tuple[str, re.Pattern[bytes], float] | None = None
    agent: Process | None = None

    def asked(self) -> bool:
        """Do what the bench asks next; return whether to go on."""
        word, *rest = self.pipe.recv()
        match word:
            case "spawn":
                begin = time.monotonic()
                self.agent = self.platform.spawn_agent(self.start)
                voice = self.agent.notify
                self.selector.register(voice, EVENT_READ, lambda _: voice.recv(4096))
                self.pipe.send((begin, self.agent.pid))
            case "write":
                self._write(rest[0])
                self.pipe.send(time.monotonic())
            case "timed":
                writes, path, pattern = rest
                self.said.pop(path, None)
                begin = time.monotonic()
                self.waiting = path, re.compile(pattern), begin
                self._write(writes)
            case "wait":
                path, pattern = rest
                self.waiting = path, re.compile(pattern), time.monotonic()
                self.heard(path, self.said.get(path))
            case "end" if self.agent is None:
                return False
            case "end":
                # It may wait for an answer, so it is served until it has ended.
                self.agent.kill(signal.SIGTERM)
                self.selector.unregister(self.pipe)
                self.selector.register(self.agent.pidfd, EVENT_READ, lambda _: None)
        return True

    def _write(self, writes: Writes) -> None:
        for path, value in writes:
            if value is None:
                self.server.remove(path)
            else:
                self.server.write(path, value)

    def heard(self, path: str, untrusted_value: bytes | None) -> None:
        """Answer the bench if this is what it waits for."""
        now = time.monotonic()
        if untrusted_value is None:
            return
        self.said[path] = untrusted_value
        if self.waiting is None or self.waiting[0] != path:
            return
        _, pattern, begin = self.waiting
        if pattern.search(untrusted_value):
            self.waiting = None
            self.pipe.send((begin, now, untrusted_value))

    def ended(self) -> bool:
        """Let go of the agent if it has ended; return whether."""
        if self.agent is None or not select.select([self.agent.pidfd], [], [], 0)[0]:
            return False
        self.agent.finish()
        return True


def _serve(
    platform: Netns, start: AgentStart, keys: Mapping[str, bytes], pipe: Connection
) -> None:
    # The agent inherits it: its uid, which nobody else has, gets no second process.
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
    selector = DefaultSelector()
    store = Store()
    for path, value in sorted(keys.items()):
        store.write(path, value)
    serving: list[_Serving] = []

    def written(path: str, untrusted_value: bytes | None) -> None:
        serving[0].heard(path, untrusted_value)

    owner = (start.uid, start.uid)
    server = QubesDbServer(selector, start.qubesdb, store, written, owner=owner)
    serving.append(_Serving(platform, start, pipe, server, selector, {}))
    going = True

    def asked(_: int) -> None:
        nonlocal going
        going = serving[0].asked()

    selector.register(pipe, EVENT_READ, asked)
    pipe.send("ready")
    while going and not serving[0].ended():
        for key, mask in selector.select():
            handle: Callable[[int], None] = key.data
            handle(mask)


@dataclass(slots=True)
class Dom0:
    """The bench's end of the process.  Moments are of `time.monotonic`."""

    platform: Netns
    start: AgentStart
    keys: Mapping[str, bytes]
    pid: int = 0
    _pipe: Connection = field(init=False)
    _process: Any = field(init=False)

    def __post_init__(self) -> None:
        fork = multiprocessing.get_context("fork")
        self._pipe, theirs = fork.Pipe()
        words = (self.platform, self.start, self.keys, theirs)
        self._process = fork.Process(target=_serve, args=words, daemon=True)
        self._process.start()
        self._answer()

    def spawn(self) -> float:
        """Start the agent; return the moment before."""
        self._pipe.send(("spawn",))
        begin, self.pid = self._answer()
        return float(begin)

    def write(self, writes: Writes) -> None:
        """Write keys; return when they are written."""
        self._pipe.send(("write", list(writes)))
        self._answer()

    def timed(self, writes: Writes, path: str, pattern: bytes = b"") -> float:
        """Write keys; return the seconds until the agent wrote this."""
        self._pipe.send(("timed", list(writes), path, pattern))
        begin, end, _ = self._answer()
        return float(end - begin)

    def moment(self, path: str, pattern: bytes = b"") -> float:
        """Wait until the agent has written this; return when it did, at the latest."""
        self._pipe.send(("wait", path, pattern))
        _, end, _ = self._answer()
        return float(end)

    def enforced(self, clients: int) -> float:
        """Wait until the agent has that many clients in use."""
        return self.moment(STATUS, rb"clients=%d\b" % clients)

    def commit(self, address: str, rules: Mapping[str, str]) -> float:
        """Change rules of a list; return the seconds until it is acknowledged."""
        base = f"/qubes-firewall/{address}"
        writes = [(f"{base}/{key}", value.encode()) for key, value in rules.items()]
        return self.timed([*writes, (base, b"")], f"{HANDLED}{address}")

    def close(self) -> None:
        """End the agent and the process."""
        if self._process.is_alive():
            self._pipe.send(("end",))
            self._process.join()

    def _answer(self) -> Any:  # noqa: ANN401 - what the other end sends
        if not self._pipe.poll(PATIENCE):
            raise TimeoutError("the agent did not do what it was told")
        return self._pipe.recv()

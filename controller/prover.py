# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon's side of the prover: one process, one task after the other."""

import json
import os
import pickle
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from selectors import EVENT_READ, BaseSelector
from typing import Protocol

from controller.admin import Json
from controller.tasks import Task, Verify, Walk

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 300.0  # seconds for one task


@dataclass(slots=True)
class Ticket:
    """A task that was handed over.

    ``answer`` is what it came to, ``failed`` why there is none; both are None as
    long as nothing is known.
    """

    task: Task
    answer: Json = None
    failed: str | None = None

    def done(self) -> bool:
        """Whether anything is known."""
        return self.answer is not None or self.failed is not None


class Proving(Protocol):
    """Whoever carries out tasks."""

    def ask(self, task: Task) -> Ticket:
        """Have a task carried out."""

    def next_deadline(self) -> float | None:
        """Return when to call `tick` at the latest, by time.monotonic()."""

    def tick(self) -> None:
        """Give up what takes too long."""

    def close(self) -> None:
        """Carry out nothing more."""


class Prover:
    """Starts the process when there is something to do, and again if it ends."""

    def __init__(
        self,
        selector: BaseSelector,
        runtime: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._selector = selector
        self._runtime = runtime
        self._clock = clock
        self._waiting: deque[Ticket] = deque()
        self._running: Ticket | None = None
        self._since = 0.0
        self._wire: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, task: Task) -> Ticket:
        """Have a task carried out, after those before it."""
        ticket = Ticket(task)
        self._waiting.append(ticket)
        self._next()
        return ticket

    def next_deadline(self) -> float | None:
        """Return when to call `tick` at the latest, by the clock given."""
        return None if self._running is None else self._since + LIMIT

    def tick(self) -> None:
        """Give up what takes too long."""
        deadline = self.next_deadline()
        if deadline is not None and deadline <= self._clock():
            self._end(f"the prover has not answered within {LIMIT:.0f} s")

    def close(self) -> None:
        """End the process."""
        self._waiting.clear()
        self._end("the daemon ends")

    def _next(self) -> None:
        if self._running is not None or not self._waiting:
            return
        self._running, self._since = self._waiting.popleft(), self._clock()
        try:
            self._hand_over(self._running.task)
        except OSError as error:
            self._end(f"the prover does not start: {error}")

    def _hand_over(self, task: Task) -> None:
        wire = self._wire or self._start()
        descriptor = os.memfd_create("ravelin", os.MFD_CLOEXEC)
        with os.fdopen(descriptor, "r+b") as file:
            pickle.dump(task, file)
            file.flush()
            file.seek(0)
            socket.send_fds(wire, [b"?"], [file.fileno()])

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        where = ["--runtime", str(self._runtime)]
        with ExitStack() as on_failure, theirs:
            on_failure.enter_context(ours)
            self._process = subprocess.Popen(  # noqa: S603 (our own program)
                [sys.executable, "-I", str(ROOT), "controller", "prove", *where],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                cwd="/",
            )
            on_failure.pop_all()
        ours.settimeout(0)
        self._wire = ours
        self._selector.register(ours, EVENT_READ, self._hear)
        return ours

    def _hear(self, _mask: int) -> None:
        if self._wire is None:
            return
        try:
            data, descriptors, _, _ = socket.recv_fds(self._wire, 1, 1)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        ticket = self._running
        if not data or ticket is None:
            self._end("the prover has ended")
            return
        with os.fdopen(descriptors[0], "rb") as file:
            ticket.answer = json.load(file)
        self._running = None
        self._next()

    def _end(self, why: str) -> None:
        """End the process; what it was doing has failed, what waits goes on."""
        if self._wire is not None:
            self._selector.unregister(self._wire)
            self._wire.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._wire = self._process = None
        if self._running is not None:
            self._running.failed = why
        self._running = None
        self._next()


class Provers:
    """One for what takes long, and one for people who only ask for a packet."""

    def __init__(self, selector: BaseSelector, runtime: Path) -> None:
        self._long, self._short = (Prover(selector, runtime) for _ in range(2))

    def ask(self, task: Task) -> Ticket:
        """Have a task carried out, after those of its kind."""
        match task:
            case Verify():
                return self._long.ask(task)
            case Walk():
                return self._short.ask(task)

    def next_deadline(self) -> float | None:
        """Return when to call `tick` at the latest."""
        times = [each.next_deadline() for each in (self._long, self._short)]
        return min((at for at in times if at is not None), default=None)

    def tick(self) -> None:
        """Give up what takes too long."""
        self._long.tick()
        self._short.tick()

    def close(self) -> None:
        """End both processes."""
        self._long.close()
        self._short.close()

# SPDX-License-Identifier: GPL-2.0-or-later
"""Proves again whenever the kernels or what is wanted of them have changed.

It only watches: nothing waits for a proof, and while something is being enforced
none begins.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from controller.kernel_events import KernelEvents
from controller.prover import Proving, Ticket
from controller.scene import Scene
from controller.standing import Standing
from controller.tasks import Verify

QUIET = 0.2  # seconds without a change until a proof begins
LATEST = 2.0  # seconds from the first change to the proof, however much changes
OUTDATED = 3  # answers in a row, of which one is told although all has changed since
AGAIN = 300.0  # seconds until it is proved again: most sysctls change without a word


class Watcher(Protocol):
    """Whoever looks at the kernels now and then."""

    def look(self, *, busy: bool) -> None:
        """Do what is due; ``busy`` is whether something is being enforced."""

    def deadline(self) -> float | None:
        """Return when to call `look` at the latest, by time.monotonic()."""

    def close(self) -> None:
        """Watch no more."""


@dataclass(slots=True)
class Watch:
    """Keeps a `Standing` up to date; ``scene`` says what is wanted, None: nothing."""

    prover: Proving
    standing: Standing
    scene: Callable[[], Scene | None]
    clock: Callable[[], float] = time.monotonic
    events: KernelEvents | None = None
    _known: Scene | None = None
    _first: float | None = None
    _last: float = 0.0
    _ticket: Ticket | None = None
    _busy: bool = False
    _otherwise: bool = False  # whether other is wanted than when the proof began
    _outdated: int = 0
    _again: float | None = field(default=None)

    def changed(self) -> None:
        """Take note that something is other than it was."""
        self._last = self.clock()
        self.standing.changed = True
        if self._first is None:
            self._first = self._last

    def look(self, *, busy: bool) -> None:
        """Do what is due."""
        self.prover.tick()
        self._busy = busy
        scene = self.scene()
        if self.events is not None:
            self.events.follow([d.name for d in scene.domains] if scene else [])
        if self._ticket is not None and self._ticket.done():
            self._learn(self._ticket)
        if scene is None:
            self._known, self._first, self._again = None, None, None
            self.standing.clear()
            return
        self.standing.expect()
        if self._known is None or replace(scene, now=self._known.now) != self._known:
            self._known, self._otherwise = scene, True
            self.changed()
        due = self._due()
        if due is not None and due <= self.clock():
            self._first, self._again, self._otherwise = None, None, False
            self._ticket = self.prover.ask(Verify(scene, replay=False))

    def deadline(self) -> float | None:
        """Return when to call `look` at the latest."""
        times = [self._due(), self.prover.next_deadline()]
        return min((at for at in times if at is not None), default=None)

    def close(self) -> None:
        """Watch no more."""
        if self.events is not None:
            self.events.close()
        self.prover.close()

    def _learn(self, ticket: Ticket) -> None:
        self._ticket = None
        self._again = self.clock() + AGAIN
        # A name that is resolved anew is in a kernel before it is known here.
        outdated = self._first is not None
        self._outdated = self._outdated + 1 if outdated else 0
        if self._known is not None and self._outdated % OUTDATED == 0:
            self.standing.take(ticket, otherwise=self._otherwise)
            self.standing.changed = outdated

    def _due(self) -> float | None:
        """Return when the next proof begins, None if there is no reason for one."""
        if self._busy or self._ticket is not None:
            return None
        if self._first is None:
            return self._again
        return min(self._last + QUIET, self._first + LATEST)

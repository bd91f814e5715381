# SPDX-License-Identifier: GPL-2.0-or-later
"""A tor and a berth that the driver cannot tell from real ones."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from agent.berth import Berth
from agent.names import Names
from rules.model import Address, Family
from torvm.listeners import Listener
from torvm.port import GUARDS, HOLD, LISTEN, RELEASE, SPEAK, GoneError
from torvm.said import Done, Listening, Ready, Reconfigured, Refused, Said


class Readable:
    """A descriptor that is readable when the test says so (eventfd(2))."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        return self._fd

    def wake(self) -> None:
        os.eventfd_write(self._fd, 1)

    def rest(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._fd)

    def close(self) -> None:
        os.close(self._fd)


@dataclass
class FakeTor:
    """Does what it is told, as tor does: held, it listens nowhere.

    ``orders`` is what it was told, in order; ``refuses`` makes it refuse
    listeners with these words, of which it then has closed all.
    """

    uid: int = 61000
    orders: list[str] = field(default_factory=list)
    held: bool = True
    listening: frozenset[Listener] = frozenset()
    wanted: frozenset[Listener] = frozenset()
    refuses: str = ""
    progress: int = 0
    circuits: bool = False
    gone: bool = False
    closed: bool = False
    waits_since: float = math.inf
    _said: list[Said] = field(default_factory=list)
    _ready: Readable = field(default_factory=Readable)

    def __post_init__(self) -> None:
        self.look_at_self()

    def say(self, *said: Said) -> None:
        self._said.extend(said)
        self._ready.wake()

    def end(self) -> None:
        self.gone = True
        self._ready.wake()

    def read_the_file_again(self) -> None:
        """SIGHUP."""
        self.held, self.listening, self.wanted = True, frozenset(), frozenset()
        self.say(Reconfigured(frozenset({"disablenetwork", "dnsport"})))

    # The port

    def fileno(self) -> int:
        return self._ready.fileno()

    def handle(self) -> list[Said]:
        self._ready.rest()
        if self.gone:
            raise GoneError("ended")
        said, self._said = self._said, []
        return said

    def hold(self) -> None:
        self._order(HOLD)
        self.held, self.listening = True, frozenset()
        self.say(Reconfigured(frozenset({"disablenetwork"})), Done(HOLD))

    def release(self, families: frozenset[Family]) -> None:
        versions = "+".join(sorted(family.name for family in families))
        self._order(f"{RELEASE} {versions}")
        self.held, self.listening = False, self.wanted
        self.say(Done(RELEASE))

    def listen(self, places: Iterable[Listener]) -> None:
        self._order(f"{LISTEN} {len(list(places))}")
        if self.refuses:
            self.listening = frozenset()
            self.say(Refused(LISTEN, self.refuses))
            return
        self.wanted = frozenset(places)
        self.listening = frozenset() if self.held else self.wanted
        self.say(Done(LISTEN), Reconfigured(frozenset({"transport"})))

    def forget_guards(self) -> None:
        self._order(GUARDS)

    def transports(self, ports: Mapping[str, int]) -> None:
        self._order(f"{SPEAK} {dict(ports)}")

    def halt(self) -> None:
        self._order("halt")
        self.end()

    def look_at_self(self) -> None:
        self.say(Ready("0.4.9", self.progress, self.circuits, self.listening))

    def look_at_listeners(self) -> None:
        self.say(Listening(self.listening))

    def look_at_circuits(self) -> None:
        self.orders.append("circuits?")

    def look_at_relays(self) -> None:
        self.orders.append("relays?")

    def look_at_countries(self, fingerprints: frozenset[str]) -> None:
        self.orders.append(f"countries? {len(fingerprints)}")

    def close(self) -> None:
        self.closed = True
        self._ready.close()

    def _order(self, what: str) -> None:
        if self.gone:
            raise GoneError("ended")
        self.orders.append(what)


@dataclass
class FakeBerth(Berth):
    """A launcher that comes when the test says so; what it is told is kept."""

    waiting: bool = False  # type: ignore[assignment]
    running: bool = False  # type: ignore[assignment]
    uid: int = 61000
    ended: int = 0
    started: list[list[str]] = field(default_factory=list)
    given: list[bytes] = field(default_factory=list)
    env: list[Mapping[str, str]] = field(default_factory=list)
    readable: Readable = field(default_factory=Readable)

    def come(self) -> None:
        self.waiting, self.running = True, False
        self.readable.wake()

    def leave(self) -> None:
        self.waiting = self.running = False
        self.readable.wake()

    def fileno(self) -> int:
        return self.readable.fileno()

    def handle(self) -> bool:
        self.readable.rest()
        return True

    def end(self) -> None:
        self.ended += 1

    def start(
        self,
        argv: Sequence[str],
        files: Sequence[int] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.started.append(list(argv))
        self.env.append(dict(env or {}))
        self.waiting, self.running = False, True
        # A pipe cannot be read at a place, and is the program's to write to.
        with suppress(OSError):
            self.given.append(b"".join(os.pread(each, 1 << 16, 0) for each in files))


@dataclass
class FakeNames(Names):
    """Knows what the test says; what it was asked is kept."""

    wanted: frozenset[str] = frozenset()
    servers: tuple[Address, ...] = ()
    found: dict[str, frozenset[Address]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    readable: Readable = field(default_factory=Readable)

    def fileno(self) -> int:
        return self.readable.fileno()

    def want(self, names: frozenset[str]) -> None:
        self.wanted = names

    def use(self, servers: tuple[Address, ...]) -> None:
        self.servers = servers

    def handle(self) -> bool:
        return False

    def waiting(self) -> int:
        return len(self.wanted - self.found.keys() - self.failed.keys())

    def answers(self) -> Mapping[str, frozenset[Address]]:
        return {name: self.found.get(name, frozenset()) for name in self.wanted}

    def problems(self) -> Mapping[str, str]:
        return {name: why for name, why in self.failed.items() if name in self.wanted}

    def next_deadline(self) -> float:
        return math.inf

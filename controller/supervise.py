# SPDX-License-Identifier: GPL-2.0-or-later
"""Keep agents running: start, listen, restart with growing delays, stop.

Everything happens in the selector loop of the caller: `Supervisor` registers
file descriptors whose ``data`` is a function to call with the mask of events,
and says by `Supervisor.next_deadline` when it wants `Supervisor.tick`.
"""

import math
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from selectors import EVENT_READ, BaseSelector

from controller.ports import Process
from controller.readable import readable

FIRST_DELAY = 0.2  # seconds
LONGEST_DELAY = 10.0
# Seconds of being ready that make earlier failures forgotten.  As long as the
# longest delay, one that always fails is still not started more often than that.
HEALTHY_AFTER = LONGEST_DELAY
START_LIMIT = 30.0  # seconds until READY=1
WATCHDOG = 10.0  # seconds between two WATCHDOG=1 of an agent that is ready
TRIM_EVERY = 5.0  # seconds between two looks at the log of a process that is mute
# tor's own sandbox may leave SIGTERM blocked, by chance; it has the guards that it
# chose last written down when it ends by itself.
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
STOP_LIMIT = 2.0  # seconds for each of them
MAX_DATAGRAM = 4096  # bytes

Launch = Callable[[], Process]


class Phase(Enum):
    """Where an agent stands."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"  # and will be started again


@dataclass(frozen=True, slots=True)
class Condition:
    """How an agent is: ``failures`` in a row, the ``reason`` of the last one.

    ``untrusted_status`` is the agent's own word for it, printable ASCII.
    """

    phase: Phase
    failures: int = 0
    reason: str = ""
    untrusted_status: str = ""


def delay(failures: int) -> float:
    """Return how long to wait after that many failures in a row, in seconds."""
    return min(FIRST_DELAY * 2.0 ** min(failures - 1, 16), LONGEST_DELAY)


def notified(untrusted_datagram: bytes) -> dict[str, str]:
    """Return the ``KEY=value`` lines of sd_notify(3), reduced to printable ASCII."""
    text = untrusted_datagram.decode("ascii", "replace")
    pairs = (line.partition("=") for line in text.split("\n"))
    return {
        key: "".join(c if c.isascii() and c.isprintable() else "?" for c in value)
        for key, _, value in pairs
    }


class Supervisor:
    """Every agent by name, in the order they were added."""

    def __init__(self, selector: BaseSelector, clock: Callable[[], float]) -> None:
        self._selector = selector
        self._clock = clock
        self._agents: dict[str, _Agent] = {}

    def add(self, name: str, launch: Launch) -> None:
        """Start an agent and keep it running; `launch` may raise OSError."""
        if name in self._agents:
            raise ValueError(f"{name}: already supervised")
        agent = _Agent(launch, self._selector, self._clock)
        self._agents[name] = agent
        agent.start()

    def remove(self, name: str) -> None:
        """Stop an agent and forget it, by the first of `STOPS` that it obeys."""
        agent = self._agents.pop(name, None)
        if agent is not None:
            agent.stop()

    def close(self) -> None:
        """Stop all agents, the one added last first: clients before providers."""
        for name in reversed(tuple(self._agents)):
            self.remove(name)

    def next_deadline(self) -> float | None:
        """Return when to call `tick` at the latest, by the clock given."""
        return min(
            (a.deadline for a in self._agents.values() if a.deadline < math.inf),
            default=None,
        )

    def tick(self) -> None:
        """Do what is due: start again, kill who is silent, keep logs within bounds."""
        for agent in self._agents.values():
            if agent.deadline <= self._clock():
                agent.expire()

    def conditions(self) -> Mapping[str, Condition]:
        """Return how every agent is now."""
        return {name: agent.condition for name, agent in self._agents.items()}


class _Agent:
    """One agent: by ``deadline`` it has spoken, or it is started again."""

    def __init__(
        self, launch: Launch, selector: BaseSelector, clock: Callable[[], float]
    ) -> None:
        self._launch = launch
        self._selector = selector
        self._clock = clock
        self._process: Process | None = None
        self._ready_since = math.inf
        self._verdict = ""
        self.deadline = math.inf
        self.condition = Condition(Phase.STARTING)

    def start(self) -> None:
        self.condition = replace(
            self.condition, phase=Phase.STARTING, untrusted_status=""
        )
        self._ready_since, self._verdict = math.inf, ""
        try:
            process = self._launch()
        except OSError as error:
            self._failed(str(error))
            return
        self._process = process
        self._selector.register(process.pidfd, EVENT_READ, self._ended)
        if process.notify is None:  # it is well as long as it runs
            self._is_ready()
            self.deadline = self._clock() + TRIM_EVERY
        else:
            self.deadline = self._clock() + START_LIMIT
            self._selector.register(process.notify, EVENT_READ, self._hear)

    def expire(self) -> None:
        if self._process is None:
            self.start()
        elif self._process.notify is None:  # no word of it reminds us
            self._process.trim_log()
            self._forgive()
            self.deadline = self._clock() + TRIM_EVERY
        else:
            self._verdict = f"no sign of life while {self.condition.phase.value}"
            self._process.kill(signal.SIGKILL)
            self.deadline = math.inf  # until it has ended

    def stop(self) -> None:
        if self._process is None:
            return
        for number in STOPS:
            self._process.kill(number)
            if readable(self._process.pidfd, STOP_LIMIT):
                break
        self._let_go(self._process)

    def _hear(self, _mask: int) -> None:
        if self._process is None or self._process.notify is None:
            return
        untrusted_datagram = self._process.notify.recv(MAX_DATAGRAM)
        untrusted_said = notified(untrusted_datagram)
        if "STATUS" in untrusted_said:
            self.condition = replace(
                self.condition, untrusted_status=untrusted_said["STATUS"]
            )
        if "READY" in untrusted_said and self.condition.phase is Phase.STARTING:
            self._is_ready()
        if self.condition.phase is Phase.READY and not self._verdict:
            self.deadline = self._clock() + WATCHDOG
        self._process.trim_log()
        self._forgive()

    def _is_ready(self) -> None:
        self.condition = replace(self.condition, phase=Phase.READY)
        self._ready_since = self._clock()

    def _ended(self, _mask: int) -> None:
        if self._process is not None:
            reason = self._let_go(self._process)
            self._failed(self._verdict or reason)

    def _failed(self, reason: str) -> None:
        self._forgive()
        failures = self.condition.failures + 1
        self.condition = Condition(Phase.FAILED, failures, reason)
        self.deadline = self._clock() + delay(failures)

    def _forgive(self) -> None:
        if self._clock() - self._ready_since >= HEALTHY_AFTER:
            self.condition = replace(self.condition, failures=0, reason="")

    def _let_go(self, process: Process) -> str:
        self._process = None
        self._selector.unregister(process.pidfd)
        if process.notify is not None:
            self._selector.unregister(process.notify)
        return process.finish()

# SPDX-License-Identifier: GPL-2.0-or-later
"""An agent that ends or falls silent is started again, ever more patiently."""

import os
import selectors
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from controller.supervise import (
    HEALTHY_AFTER,
    START_LIMIT,
    WATCHDOG,
    Condition,
    Phase,
    Supervisor,
    delay,
    notified,
)
from tests.controller.own_machine import many_files


class FakeProcess:
    """A process whose end is a closed pipe, and that obeys some signals."""

    def __init__(self, obeys: set[int], *, mute: bool) -> None:
        self.pidfd, self._alive = os.pipe()
        self.ear, self.mouth = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify = None if mute else self.ear
        self._obeys = obeys
        self.signals: list[int] = []
        self.trimmed = 0
        self.finished = False
        self._ended = False

    def say(self, *lines: str) -> None:
        self.mouth.send("\n".join(lines).encode())

    def end(self) -> None:
        if not self._ended:
            self._ended = True
            os.close(self._alive)

    def kill(self, number: int) -> None:
        self.signals.append(number)
        if number in self._obeys:
            self.end()

    def trim_log(self) -> None:
        self.trimmed += 1

    def finish(self) -> str:
        self.end()
        os.close(self.pidfd)
        self.ear.close()
        self.mouth.close()
        self.finished = True
        return "exit code 1: ValueError: what it said last"


@dataclass
class World:
    """A supervisor with a clock that only the test moves."""

    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    now: float = 100.0
    obeys: set[int] = field(default_factory=lambda: {signal.SIGTERM, signal.SIGKILL})
    refuse: str = ""
    mute: bool = False
    started: list[FakeProcess] = field(default_factory=list)
    supervisor: Supervisor = field(init=False)

    def __post_init__(self) -> None:
        self.supervisor = Supervisor(self.selector, lambda: self.now)

    def launch(self) -> FakeProcess:
        if self.refuse:
            raise OSError(self.refuse)
        self.started.append(FakeProcess(self.obeys, mute=self.mute))
        return self.started[-1]

    def add(self, name: str = "sys-net") -> FakeProcess:
        self.supervisor.add(name, self.launch)
        return self.started[-1]

    def turn(self) -> None:
        """Handle what is readable now, and what is due now."""
        for key, mask in self.selector.select(0):
            key.data(mask)
        self.supervisor.tick()

    def wait(self) -> None:
        """Let the time come that the supervisor asked for."""
        deadline = self.supervisor.next_deadline()
        assert deadline is not None
        self.now = max(self.now, deadline)
        self.turn()

    def condition(self, name: str = "sys-net") -> Condition:
        return self.supervisor.conditions()[name]


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.supervisor.close()
    assert all(process.finished for process in world.started)
    assert not world.selector.get_map()
    world.selector.close()


@pytest.mark.parametrize(
    ("failures", "seconds"),
    [(1, 0.2), (2, 0.4), (3, 0.8), (6, 6.4), (7, 10.0), (8, 10.0), (10**6, 10.0)],
)
def test_the_delay_doubles_up_to_ten_seconds(failures: int, seconds: float) -> None:
    assert delay(failures) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("untrusted", "said"),
    [
        pytest.param(b"READY=1\nSTATUS=up", {"READY": "1", "STATUS": "up"}, id="two"),
        pytest.param(b"STATUS=a=b", {"STATUS": "a=b"}, id="value with ="),
        pytest.param(b"STATUS=\x1b[31m", {"STATUS": "?[31m"}, id="terminal code"),
        pytest.param(b"STATUS=\xff\xfe", {"STATUS": "??"}, id="not ASCII"),
        pytest.param(b"", {"": ""}, id="empty"),
    ],
)
def test_what_an_agent_says_is_reduced_to_printable_ascii(
    untrusted: bytes, said: dict[str, str]
) -> None:
    assert notified(untrusted) == said


def test_an_agent_is_ready_when_it_says_so(world: World) -> None:
    agent = world.add()
    assert world.condition() == Condition(Phase.STARTING)
    agent.say("READY=1", "STATUS=UP")
    world.turn()
    assert world.condition() == Condition(Phase.READY, untrusted_status="UP")


def test_an_agent_that_ends_is_started_again_with_the_reason_kept(
    world: World,
) -> None:
    world.add().end()
    world.turn()
    assert world.condition().phase is Phase.FAILED
    assert len(world.started) == 1
    world.wait()
    assert len(world.started) == 2
    assert world.condition().phase is Phase.STARTING
    assert world.condition().failures == 1
    assert "what it said last" in world.condition().reason


def test_each_failure_in_a_row_waits_longer(world: World) -> None:
    world.add()
    waited = []
    for _ in range(8):
        world.started[-1].end()
        world.turn()
        deadline = world.supervisor.next_deadline()
        assert deadline is not None
        waited.append(round(deadline - world.now, 3))
        world.wait()
    assert waited == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]


@pytest.mark.parametrize(
    ("healthy_for", "failures"), [(HEALTHY_AFTER - 1, 2), (HEALTHY_AFTER + 1, 1)]
)
def test_health_makes_failures_forgotten(
    world: World, healthy_for: float, failures: int
) -> None:
    world.add().end()
    world.turn()
    world.wait()
    world.started[-1].say("READY=1")
    for key, mask in world.selector.select(0):
        key.data(mask)
    world.now += healthy_for
    world.started[-1].end()
    for key, mask in world.selector.select(0):
        key.data(mask)
    assert world.condition().failures == failures


@pytest.mark.parametrize("mute", [False, True])
def test_who_is_well_again_is_not_blamed_for_what_was(
    world: World, *, mute: bool
) -> None:
    world.mute = mute
    world.add().end()
    world.turn()
    world.wait()
    assert world.condition().failures == 1

    for _ in range(3):
        if not mute:
            world.started[-1].say("READY=1")
            world.turn()
        world.now += HEALTHY_AFTER / 2
        world.turn()

    assert world.condition() == Condition(Phase.READY)


@pytest.mark.parametrize(
    ("ready", "limit", "reason"),
    [
        (False, START_LIMIT, "no sign of life while starting"),
        (True, WATCHDOG, "no sign of life while ready"),
    ],
    ids=["starting", "ready"],
)
def test_a_silent_agent_is_killed_and_started_again(
    world: World, limit: float, reason: str, *, ready: bool
) -> None:
    agent = world.add()
    if ready:
        agent.say("READY=1")
        world.turn()
    assert world.supervisor.next_deadline() == world.now + limit
    world.wait()
    assert agent.signals == [signal.SIGKILL]
    world.turn()
    assert world.condition() == Condition(Phase.FAILED, 1, reason)
    world.wait()
    assert len(world.started) == 2


def test_a_sign_of_life_moves_the_deadline_and_trims_the_log(world: World) -> None:
    agent = world.add()
    agent.say("READY=1")
    world.turn()
    world.now += WATCHDOG - 1
    agent.say("WATCHDOG=1")
    world.turn()
    assert world.supervisor.next_deadline() == world.now + WATCHDOG
    assert agent.trimmed == 2


def test_the_log_of_a_daemon_that_says_nothing_is_trimmed_too(world: World) -> None:
    """What its clients do can be written there, line by line, as long as it runs."""
    world.mute = True
    daemon = world.add("sys-tor/tor")
    assert world.condition("sys-tor/tor").phase is Phase.READY

    for _ in range(3):
        world.wait()

    assert daemon.trimmed == 3
    assert daemon.signals == []
    assert world.started == [daemon]


def test_a_launch_that_is_refused_counts_as_a_failure(world: World) -> None:
    world.refuse = "no such namespace"
    world.supervisor.add("sys-net", world.launch)
    assert world.condition() == Condition(Phase.FAILED, 1, "no such namespace")
    world.refuse = ""
    world.wait()
    assert world.condition().phase is Phase.STARTING


def test_one_failing_agent_leaves_the_others_alone(world: World) -> None:
    good = world.add("sys-firewall")
    good.say("READY=1")
    world.add("sys-net").end()
    world.turn()
    assert world.condition("sys-firewall").phase is Phase.READY
    assert world.condition("sys-net").phase is Phase.FAILED


@pytest.mark.parametrize(
    ("obeys", "signals"),
    [
        ({signal.SIGTERM}, [signal.SIGTERM]),
        ({signal.SIGINT}, [signal.SIGTERM, signal.SIGINT]),
        ({signal.SIGKILL}, [signal.SIGTERM, signal.SIGINT, signal.SIGKILL]),
    ],
    ids=["obedient", "deaf by chance", "stubborn"],
)
def test_stopping_asks_and_then_insists(
    world: World,
    obeys: set[int],
    signals: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("controller.supervise.STOP_LIMIT", 0.01)
    world.obeys = obeys
    agent = world.add()
    world.supervisor.remove("sys-net")
    assert agent.signals == signals
    assert agent.finished
    assert world.supervisor.conditions() == {}


def test_stopping_is_not_stopped_by_many_open_files(world: World) -> None:
    with many_files():
        process = world.add()
        world.supervisor.remove("sys-net")

    assert process.signals == [signal.SIGTERM]


def test_the_last_added_is_stopped_first(world: World) -> None:
    order: list[str] = []
    for name in ("sys-net", "sys-firewall"):
        agent = world.add(name)
        end = agent.end
        agent.end = lambda n=name, end=end: (order.append(n), end())  # type: ignore[assignment,misc]
    world.supervisor.close()
    assert list(dict.fromkeys(order)) == ["sys-firewall", "sys-net"]


def test_one_name_is_one_agent(world: World) -> None:
    world.add()
    with pytest.raises(ValueError, match="already"):
        world.add()


def test_removing_what_is_not_there_is_fine(world: World) -> None:
    world.supervisor.remove("sys-net")
    assert world.supervisor.next_deadline() is None

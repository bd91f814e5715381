# SPDX-License-Identifier: GPL-2.0-or-later
"""A tor is started, found again, and started anew when it ended; never in a hurry."""

import gc
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import pytest

from tests.torvm.fakes import FakeBerth, FakeTor
from torvm.daemon import LARGEST, LONGEST, LOOK, SILENCE, Daemon
from torvm.port import TorBackend
from torvm.said import Ready
from torvm.torrc import Torrc

OF_ITSELF = Ready("0.4.9", 100, circuits=True, listening=frozenset())


@dataclass
class World:
    """What listens where, a berth and a clock."""

    folder: Path
    now: float = 100.0
    listening: dict[str, FakeTor] = field(default_factory=dict)
    berth: FakeBerth = field(default_factory=FakeBerth)

    def __post_init__(self) -> None:
        self.torrc = Torrc(str(self.folder), "/state")
        self.daemon = Daemon(self.torrc, self.berth, self.connect, lambda: self.now)
        self.daemon.begin(None)

    def connect(self, path: str, cookie: str) -> TorBackend:
        assert cookie.startswith(path)
        if path not in self.listening or self.listening[path].gone:
            raise ConnectionRefusedError
        return self.listening[path]

    def listens(self, tor: FakeTor, path: str = "") -> FakeTor:
        where = path or self.torrc.socket
        Path(where).touch()
        self.listening[where] = tor
        return tor

    def passes(self, seconds: float) -> list[object]:
        self.now += seconds
        return list(self.daemon.handle())

    def starts(self) -> FakeTor:
        """A launcher comes, becomes tor, and tor listens."""
        self.berth.come()
        self.daemon.handle()
        self.daemon.start()
        tor = self.listens(FakeTor())
        self.passes(LOOK)
        return tor

    def ends(self, tor: FakeTor) -> None:
        tor.end()
        self.berth.leave()
        self.daemon.handle()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_launcher_becomes_tor_with_its_whole_configuration(world: World) -> None:
    tor = world.starts()

    assert world.daemon.tor is tor
    (argv,) = world.berth.started
    assert argv[0] == "/usr/bin/tor"
    assert argv[argv.index("-f") + 1] == "/proc/self/fd/3"
    assert argv[argv.index("--defaults-torrc") + 1] == "/dev/null"
    assert world.berth.given == [world.torrc.text().encode()]


def test_without_a_launcher_nothing_is_started(world: World) -> None:
    world.daemon.start()

    assert world.berth.started == []


def test_tor_is_there_only_once_it_has_said_how_it_is(world: World) -> None:
    world.berth.come()
    world.daemon.start()
    silent = world.listens(FakeTor())
    silent._said.clear()
    world.passes(LOOK)
    assert world.daemon.tor is None
    silent.look_at_self()
    assert [type(each) for each in world.passes(0)] == [Ready]

    assert world.daemon.tor is silent


def test_one_that_ended_is_started_again_at_once(world: World) -> None:
    first = world.starts()
    world.ends(first)
    assert world.daemon.tor is None
    assert first.closed

    assert world.starts() is world.daemon.tor
    assert len(world.berth.started) == 2


def test_one_that_ends_before_it_says_a_word_is_given_ever_more_time(
    world: World,
) -> None:
    """Nothing is retried in a busy loop."""
    starts = []
    for _ in range(600):
        world.berth.come()
        world.daemon.start()
        if len(world.berth.started) > len(starts):
            starts.append(world.now)
            world.berth.leave()
        world.passes(1.0)
    pauses = [b - a for a, b in pairwise(starts)]

    assert pauses[:4] == [1, 2, 4, 8]
    assert pauses == sorted(pauses)
    assert max(pauses) == LONGEST
    assert world.daemon.ended == len(starts)


def test_after_a_day_of_that_it_is_still_tried(world: World) -> None:
    world.daemon.ended = 2000
    world.berth.come()
    world.daemon.start()

    assert world.berth.started


def test_the_next_deadline_is_when_it_may_be_started(world: World) -> None:
    world.berth.come()
    world.daemon.start()
    world.berth.leave()
    world.berth.come()

    assert not world.daemon.due
    assert world.daemon.next_deadline() <= world.now + 1


def test_an_agent_that_comes_back_finds_its_tor(world: World) -> None:
    """tor outlives its agent, and its clients' streams with it."""
    tor = world.listens(FakeTor(progress=100, circuits=True))
    world.passes(0)

    assert world.daemon.tor is tor
    assert world.berth.started == []


def test_a_tor_of_another_configuration_is_ended(world: World) -> None:
    """Say, one without the bridges that there are now."""
    other = Torrc(str(world.folder), "/other")
    stale = world.listens(FakeTor(), other.socket)
    world.passes(0)
    world.passes(0)

    assert stale.orders == ["halt"]
    assert world.daemon.tor is None
    world.passes(1)
    assert stale.closed


def test_somebody_else_at_its_place_is_not_spoken_to(world: World) -> None:
    """Control: the test before the last."""
    stranger = world.listens(FakeTor(uid=1))
    world.passes(0)

    assert world.daemon.tor is None
    assert stranger.closed


def test_a_tor_that_speaks_nonsense_is_lost_and_found_again(world: World) -> None:
    world.starts()
    world.daemon.lose()
    assert world.daemon.tor is None
    found = world.listens(FakeTor())
    world.passes(0)

    assert world.daemon.tor is found


def test_one_that_does_not_answer_is_lost_until_it_does(world: World) -> None:
    """It runs, so no other one is started; whoever is its client waits for nothing."""
    tor = world.starts()
    tor.waits_since = world.now
    world.passes(SILENCE - 1)
    assert world.daemon.tor is tor
    assert world.daemon.next_deadline() == world.now + 1
    world.passes(1)
    assert world.daemon.tor is None
    assert world.daemon.silent

    found = world.listens(FakeTor())
    found._said.clear()
    world.passes(LOOK)
    assert world.daemon.silent
    found.look_at_self()
    world.passes(0)
    assert world.daemon.tor is found
    assert not world.daemon.silent
    assert len(world.berth.started) == 1
    assert world.berth.ended == 0


def test_one_that_does_not_answer_for_longer_is_ended(world: World) -> None:
    """Once it may be the machine that stood still, and tor that was not heard yet."""
    world.starts().waits_since = world.now
    world.passes(SILENCE)
    for ended in (1, 2):
        found = world.listens(FakeTor())
        found._said.clear()
        world.passes(LOOK)
        found.waits_since = world.now
        world.passes(SILENCE - 1)
        assert world.berth.ended == ended - 1
        world.passes(1)
        assert world.berth.ended == ended
    world.listening.clear()
    world.berth.leave()
    assert world.starts() is world.daemon.tor


def test_one_that_has_become_too_large_is_started_anew(world: World) -> None:
    """Names of onion services take memory for as long as it runs."""
    tor = world.starts()
    tor.say(replace(OF_ITSELF, memory=LARGEST))
    world.passes(0)
    assert tor.orders == []
    assert not world.daemon.large
    tor.say(replace(OF_ITSELF, memory=LARGEST + 1))
    world.passes(0)
    assert tor.orders == ["halt"]
    world.ends(tor)
    assert world.daemon.large

    assert world.starts() is world.daemon.tor
    assert not world.daemon.large


def test_one_of_another_configuration_that_does_not_answer_is_ended(
    world: World,
) -> None:
    stale = world.listens(FakeTor(), str(world.folder / "other.control"))
    stale._said.clear()
    world.passes(LOOK)
    world.listening.clear()
    stale.waits_since = world.now
    world.passes(SILENCE - 1)
    assert world.berth.ended == 0
    assert world.daemon.next_deadline() <= world.now + 1
    world.passes(1)
    assert world.berth.ended == 1
    assert stale.closed


def test_no_descriptor_is_left_open(world: World) -> None:
    def descriptors() -> int:
        gc.collect()  # of what tests before this one left
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    world.ends(world.starts())
    before = descriptors()
    for _ in range(20):
        # The eventfd of a fake tor goes when tor is closed.
        world.ends(world.starts())

    assert descriptors() == before

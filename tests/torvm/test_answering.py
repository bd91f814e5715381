# SPDX-License-Identifier: GPL-2.0-or-later
"""Who hangs is told from who lives by one question, which keeps nobody waiting.

Programs here are sockets of the test; `tests/torvm/test_transports.py` has real ones.
"""

import gc
import math
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from torvm.answering import ANSWER, PATIENCE, QUESTION, QUIET, Answering

DEADLINE = 20.0  # seconds; only a failing test waits that long


@dataclass
class Program:
    """Listens, and takes a connection when the test says so."""

    listening: socket.socket = field(
        default_factory=lambda: socket.create_server(("127.0.0.1", 0))
    )

    @property
    def port(self) -> int:
        return int(self.listening.getsockname()[1])

    def asked(self) -> socket.socket:
        """Take the next connection, which must bring the question and no more."""
        self.listening.settimeout(DEADLINE)
        made, _ = self.listening.accept()
        made.settimeout(DEADLINE)
        assert made.recv(100) == QUESTION
        return made

    def close(self) -> None:
        self.listening.close()


@dataclass
class World:
    """Who asks, and a clock."""

    now: float = 100.0

    def __post_init__(self) -> None:
        self.answering = Answering(lambda: self.now)

    def passes(self, seconds: float) -> bool:
        """Let time pass, and what is due happen: nothing of it waits."""
        self.now += seconds
        return self.answering.handle()

    def until(self, found: Callable[[], bool]) -> None:
        """Take what comes until it is so."""
        while not found():
            assert select.select([self.answering], [], [], DEADLINE)[0]
            self.answering.handle()

    def says(self, program: Program) -> socket.socket:
        """Say what is due to a program; return its end of the connection."""
        # The connection is there, so what is writable now was said.
        self.until(lambda: self.answering._said)
        return program.asked()

    def hears(self, made: socket.socket, answer: bytes) -> None:
        """Have a program answer, hang up, and be heard."""
        with made:
            made.sendall(answer)
        self.until(lambda: self.answering._socket is None)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.answering.look([])


@pytest.fixture
def program() -> Iterator[Program]:
    with closing(Program()) as made:
        yield made


def test_nobody_is_asked_before_there_is_a_port(world: World) -> None:
    assert world.answering.next_deadline() == math.inf
    assert not world.passes(QUIET)


def test_one_that_answers_is_asked_again_after_a_while(
    world: World, program: Program
) -> None:
    world.answering.look([program.port])
    for _ in range(3):
        assert world.answering.next_deadline() == world.now + QUIET
        assert not world.passes(QUIET)
        assert world.answering.next_deadline() == world.now + PATIENCE
        world.hears(world.says(program), ANSWER)

    assert world.answering.missed == 0


def test_an_answer_may_come_in_pieces(world: World, program: Program) -> None:
    world.answering.look([program.port])
    world.passes(QUIET)
    made = world.says(program)
    made.sendall(ANSWER[:1])
    world.until(lambda: world.answering._untrusted == ANSWER[:1])
    world.hears(made, ANSWER[1:])

    assert not world.passes(QUIET)
    assert world.answering.missed == 0


def test_one_whose_kernel_alone_answers_has_missed_it(
    world: World, program: Program
) -> None:
    """It takes the connection, and the question too, as for every listener."""
    world.answering.look([program.port])
    world.passes(QUIET)
    world.until(lambda: world.answering._said)
    assert not world.passes(PATIENCE - 1)
    assert world.passes(1)
    assert world.answering.missed == 1
    assert world.passes(PATIENCE)
    assert world.answering.missed == 2
    # The control: it takes all of them now, and answers the last.
    world.until(lambda: world.answering._said)
    for _ in range(2):
        program.asked().close()
    world.hears(program.asked(), ANSWER)

    assert world.answering.missed == 0
    assert world.answering.next_deadline() == world.now + QUIET


@pytest.mark.parametrize(
    "untrusted_answer",
    [b"", b"\5", b"\5\0", b"\5\2", b"\4\xff", b"\xff\5", b"HTTP/1.1 400", b"\0" * 999],
)
def test_what_is_no_answer_counts_as_none(
    world: World, program: Program, untrusted_answer: bytes
) -> None:
    """It is believed when it has had the time for another word."""
    world.answering.look([program.port])
    world.passes(QUIET)
    world.hears(world.says(program), untrusted_answer)
    assert world.answering.missed == 0
    assert world.answering.next_deadline() == world.now + PATIENCE
    assert world.passes(PATIENCE)

    assert world.answering.missed == 1


def test_where_nobody_listens_nobody_answers(world: World, program: Program) -> None:
    """And nothing wakes the agent until it is time to ask again."""
    world.answering.look([program.port])
    program.listening.shutdown(socket.SHUT_RDWR)
    world.passes(QUIET)
    world.until(lambda: world.answering._socket is None)

    assert not select.select([world.answering], [], [], 0)[0]
    assert world.answering.next_deadline() == world.now + PATIENCE
    assert world.passes(PATIENCE)
    assert world.answering.missed == 1


def test_a_queue_that_is_full_keeps_nobody_waiting(world: World) -> None:
    """There is no connection then, and nothing said, and time passes all the same."""
    with closing(Program(socket.create_server(("127.0.0.1", 0), backlog=0))) as full:
        queue = [socket.socket() for _ in range(3)]
        for each in queue:
            each.settimeout(0)
            each.connect_ex(("127.0.0.1", full.port))
        assert select.select([], [queue[0]], [], DEADLINE)[1]
        world.answering.look([full.port])
        world.passes(QUIET)
        world.passes(0)
        assert not world.answering._said
        assert world.passes(PATIENCE)
        assert world.answering.missed == 1
        for each in queue:
            each.close()


def test_an_answer_that_was_there_in_time_counts_though_it_is_read_late(
    world: World, program: Program
) -> None:
    """The agent may have stood still, with all the machine."""
    world.answering.look([program.port])
    world.passes(QUIET)
    with world.says(program) as made:
        made.sendall(ANSWER)
    assert select.select([world.answering], [], [], DEADLINE)[0]

    assert not world.passes(PATIENCE * 100)
    assert world.answering.missed == 0


def test_ports_are_asked_in_turn_and_one_that_is_silent_until_it_answers(
    world: World, program: Program
) -> None:
    """So one of two that hangs misses as many in a row as one alone."""
    with closing(Program()) as other:
        first, second = sorted((program, other), key=lambda each: each.port)
        world.answering.look([second.port, first.port])
        world.passes(QUIET)
        world.hears(world.says(first), ANSWER)
        world.passes(QUIET)
        for missed in (1, 2):
            world.says(second).close()
            world.until(lambda: world.answering._socket is None)
            world.passes(PATIENCE)
            assert world.answering.missed == missed
        world.hears(world.says(second), ANSWER)
        world.passes(QUIET)

        world.hears(world.says(first), ANSWER)


def test_other_ports_are_another_program(world: World, program: Program) -> None:
    world.answering.look([program.port])
    world.passes(QUIET)
    world.passes(PATIENCE)
    assert world.answering.missed == 1
    world.answering.look([program.port])  # the same
    assert world.answering.missed == 1
    world.answering.look([])
    assert world.answering.missed == 0
    assert world.answering.next_deadline() == math.inf
    world.answering.look([program.port])

    assert world.answering.next_deadline() == world.now + QUIET


def test_no_descriptor_is_left_open(world: World, program: Program) -> None:
    def descriptors() -> int:
        gc.collect()  # of what tests before this one left
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    before = descriptors()
    world.answering.look([program.port])
    world.passes(QUIET)
    for _ in range(20):
        world.passes(PATIENCE)
        assert descriptors() == before + 1
    world.answering.look([])

    assert descriptors() == before

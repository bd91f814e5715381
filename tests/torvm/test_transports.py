# SPDX-License-Identifier: GPL-2.0-or-later
"""The program of the bridges' transports, started as a user of its own.

The real obfs4proxy runs here, told as the launcher is told.
"""

import fcntl
import math
import os
import select
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import pytest

from tests.torvm.fakes import FakeBerth
from torvm.answering import PATIENCE as ANSWER
from torvm.answering import QUIET
from torvm.pluggable import Program
from torvm.proxy import Kind, Login, Proxy
from torvm.transports import LIMIT, PATHS, PAUSE, START, Transports

OBFS4 = frozenset({"obfs4"})
BECOME = """
import fcntl, os, sys
kept = [fcntl.fcntl(int(word), fcntl.F_DUPFD, 10) for word in sys.argv[1:3]]
for number, descriptor in enumerate(kept, 3):
    os.dup2(descriptor, number)
os.execv(sys.argv[3], sys.argv[3:])
"""
PATIENCE = 20.0  # seconds; only a failing test waits that long


@dataclass
class Launching(FakeBerth):
    """A berth whose launcher becomes what it is told, as ourselves.

    ``written`` is what the programs write on their standard error.
    """

    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    ours: list[socket.socket] = field(default_factory=list)
    written: IO[bytes] = field(default_factory=TemporaryFile)

    def descriptors(self) -> int:
        """Return how many the last program has."""
        there = Path(f"/proc/{self.processes[-1].pid}/fd")
        return sum(1 for _ in there.iterdir())

    def start(
        self,
        argv: Sequence[str],
        files: Sequence[int] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        (pipe,) = files
        # As `agent.launcher`: the files are 3 and more, then the connection.
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ours.append(mine)
        kept = [pipe, theirs.fileno()]
        words = [sys.executable, "-c", BECOME, *map(str, kept), *argv]
        with theirs:
            made = subprocess.Popen(
                words, env=dict(env or {}), pass_fds=kept, stderr=self.written
            )
        self.processes.append(made)
        self.waiting, self.running = False, True


class Berthed(FakeBerth):
    """A berth whose launcher becomes the test: ``pipes`` get what it speaks by."""

    def __init__(self, pipes: list[int]) -> None:
        super().__init__()
        self._pipes = pipes

    def start(
        self,
        argv: Sequence[str],
        files: Sequence[int] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        assert argv[-1] in PATHS[Program.OBFS4PROXY]
        assert env is not None
        assert env["TOR_PT_CLIENT_TRANSPORTS"] == "obfs4"
        self._pipes.append(os.dup(files[0]))
        self.waiting, self.running = False, True


@pytest.fixture
def berth() -> Iterator[Launching]:
    made = Launching()
    yield made
    for each in made.processes:
        each.kill()
        each.wait()
    for connection in made.ours:
        connection.close()
    made.written.close()


def begun(
    berth: FakeBerth,
    folder: Path,
    proxy: Proxy | None = None,
    *,
    program: Program = Program.OBFS4PROXY,
    names: frozenset[str] = OBFS4,
    clock: Callable[[], float] = time.monotonic,
) -> Transports:
    """Return one that was told of a proxy, or that there is none, and started."""
    transports = Transports(program, names, berth, str(folder), clock)
    transports.begin(proxy)
    berth.come()
    transports.handle()
    return transports


def until_spoken(transports: Transports) -> None:
    """Wait until it speaks all, and has said that this is all."""
    until(lambda: transports._announced == math.inf, transports)
    assert transports.complete


def until(found: Callable[[], bool], transports: Transports) -> None:
    deadline = time.monotonic() + PATIENCE
    while not found():
        left = deadline - time.monotonic()
        assert left > 0, transports.trouble
        assert select.select([transports], [], [], left)[0]
        transports.handle()


def test_the_real_program_speaks_at_a_port_of_its_own(
    berth: Launching, tmp_path: Path
) -> None:
    transports = begun(berth, tmp_path)
    until_spoken(transports)

    assert transports.ports.keys() == OBFS4
    assert 0 < transports.ports["obfs4"] < 65536
    assert transports.trouble == ""


def test_with_its_agent_it_ends(berth: Launching, tmp_path: Path) -> None:
    """Where it speaks is known to who started it, and to nobody later."""
    transports = begun(berth, tmp_path)
    until_spoken(transports)
    berth.ours[0].close()

    berth.processes[0].wait(PATIENCE)


@pytest.mark.parametrize("kind", list(Kind))
def test_the_real_program_takes_a_proxy_of_each_kind(
    berth: Launching, tmp_path: Path, kind: Kind
) -> None:
    login = None if kind is Kind.SOCKS4 else Login("m:e" * 2, 'p"@/ :%')
    proxy = Proxy(kind, ip_address("192.0.2.9"), 1080, login)
    names = frozenset({"obfs4", "meek_lite"})
    transports = begun(berth, tmp_path, proxy, names=names)
    until_spoken(transports)

    assert transports.ports.keys() == names


def test_the_real_snowflake_speaks_and_takes_no_proxy(
    berth: Launching, tmp_path: Path
) -> None:
    """So one beside it is refused before (`torvm.given`)."""
    program, names = Program.SNOWFLAKE, frozenset({"snowflake"})
    transports = begun(berth, tmp_path, program=program, names=names)
    until_spoken(transports)
    assert transports.ports.keys() == names
    proxy = Proxy(Kind.SOCKS5, ip_address("192.0.2.9"), 1080)
    other = begun(berth, tmp_path, proxy, program=program, names=names)
    until(lambda: bool(other.trouble), other)
    assert other.trouble == "the bridges' transport does not start"


def test_nothing_is_started_before_it_is_told_of_a_proxy(
    berth: Launching, tmp_path: Path
) -> None:
    transports = Transports(Program.OBFS4PROXY, OBFS4, berth, str(tmp_path))
    berth.come()
    transports.handle()

    assert transports.next_deadline() == math.inf
    assert berth.processes == []


def test_when_it_ends_it_speaks_nowhere_and_is_started_again(
    berth: Launching, tmp_path: Path
) -> None:
    moment = [100.0]
    transports = begun(berth, tmp_path, clock=lambda: moment[0])
    until_spoken(transports)
    berth.processes[0].kill()
    berth.leave()
    assert transports.handle()
    assert transports.ports == {}
    berth.come()
    transports.handle()
    assert len(berth.processes) == 1
    assert transports.next_deadline() == 100 + PAUSE
    moment[0] += PAUSE
    transports.handle()

    until_spoken(transports)
    assert len(berth.processes) == 2


REAL = [
    (Program.OBFS4PROXY, frozenset({"obfs4", "meek_lite"})),
    (Program.SNOWFLAKE, frozenset({"snowflake"})),
]
SILENT = "the bridges' transport runs, but does not answer"


@pytest.mark.parametrize(("program", "names"), REAL)
def test_the_real_ones_answer_and_nothing_comes_of_it(
    berth: Launching, tmp_path: Path, program: Program, names: frozenset[str]
) -> None:
    """Each listener of theirs; they keep no connection, and write nothing down."""
    moment = [100.0]
    transports = begun(
        berth, tmp_path, program=program, names=names, clock=lambda: moment[0]
    )
    until_spoken(transports)
    before, ended = berth.descriptors(), berth.ended
    written = os.fstat(berth.written.fileno()).st_size
    for _ in range(10):
        moment[0] += QUIET
        assert not transports.handle()
        until(lambda: not transports._answering._waits, transports)
        assert transports.next_deadline() == moment[0] + QUIET

    # It hangs up once it has answered.
    deadline = time.monotonic() + PATIENCE
    while (now := berth.descriptors()) != before:
        assert time.monotonic() < deadline, (now, before)
    assert transports.trouble == ""
    assert berth.ended == ended
    assert os.fstat(berth.written.fileno()).st_size == written


@pytest.mark.parametrize(("program", "names"), REAL)
def test_a_real_one_that_stands_still_is_ended(
    berth: Launching, tmp_path: Path, program: Program, names: frozenset[str]
) -> None:
    """After two questions, but one of which is told at once.

    The control: one that goes on before that has done nothing wrong.
    """
    moment = [100.0]
    transports = begun(
        berth, tmp_path, program=program, names=names, clock=lambda: moment[0]
    )
    until_spoken(transports)
    (process,), ended = berth.processes, berth.ended

    def stands_still() -> None:
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        moment[0] += QUIET
        assert not transports.handle()
        moment[0] += ANSWER
        assert transports.handle()
        assert transports.trouble == SILENT
        assert transports.complete
        assert berth.ended == ended

    stands_still()
    process.send_signal(signal.SIGCONT)
    until(lambda: transports.trouble == "", transports)
    stands_still()
    moment[0] += ANSWER
    transports.handle()
    assert berth.ended == ended + 1
    # That is the cause until another one speaks.
    process.kill()
    berth.leave()
    assert transports.handle()
    assert transports.trouble == SILENT
    berth.come()
    transports.handle()
    until_spoken(transports)
    assert transports.trouble == ""


def test_one_that_hangs_before_it_speaks_is_ended(tmp_path: Path) -> None:
    """Its words are due as an answer is."""
    moment = [100.0]
    transports = heard(tmp_path, b"VERSION 1\n", lambda: moment[0])
    berth = transports._berth
    assert isinstance(berth, FakeBerth)
    ended = berth.ended
    assert transports.next_deadline() == moment[0] + START
    moment[0] += START - 1
    assert not transports.handle()
    assert berth.ended == ended
    moment[0] += 1
    assert transports.handle()

    assert berth.ended == ended + 1
    assert transports.trouble == SILENT


def test_one_that_has_said_all_owes_no_more_words(tmp_path: Path) -> None:
    """The control of the one before."""
    moment = [100.0]
    said = b"CMETHOD-ERROR obfs4 no\nCMETHODS DONE\n"
    transports = heard(tmp_path, said, lambda: moment[0])
    berth = transports._berth
    assert isinstance(berth, FakeBerth)
    ended = berth.ended
    assert transports.next_deadline() == math.inf
    moment[0] += START
    assert not transports.handle()

    assert berth.ended == ended
    assert transports.trouble == "the bridges' transport does not start"


def test_one_of_an_agent_before_that_hangs_is_ended(tmp_path: Path) -> None:
    """It would end by itself, and no launcher could come while it does not."""
    berth = FakeBerth()
    transports = Transports(Program.OBFS4PROXY, OBFS4, berth, str(tmp_path))
    assert berth.ended == 0
    transports.begin(None)

    assert berth.ended == 1


@pytest.mark.parametrize(
    ("said", "ports"),
    [
        (b"VERSION 1\nCMETHOD obfs4 socks5 127.0.0.1:4711\n", {"obfs4": 4711}),
        (b"CMETHOD obfs4 socks5 127.0.0.1:4711", {}),
        (b"CMETHOD obfs4 socks5 192.0.2.1:4711\n", {}),
        (b"CMETHOD obfs4 socks4 127.0.0.1:4711\n", {}),
        (b"CMETHOD other socks5 127.0.0.1:4711\n", {}),
        (b"CMETHOD-ERROR obfs4 no\n", {}),
        (b"\0" * 100, {}),
    ],
)
def test_only_a_port_of_this_host_is_believed(
    said: bytes, ports: Mapping[str, int], tmp_path: Path
) -> None:
    assert heard(tmp_path, said).ports == ports


def test_who_says_much_is_heard_a_piece_at_a_time(tmp_path: Path) -> None:
    """A program that was taken over may say something without a pause."""
    said = b"CMETHOD obfs4 socks5 127.0.0.1:4711\n" + b"x" * (3 * LIMIT)
    pipes: list[int] = []
    transports = begun(Berthed(pipes), tmp_path)
    fcntl.fcntl(pipes[0], fcntl.F_SETPIPE_SZ, 8 * LIMIT)
    assert os.write(pipes[0], said) == len(said)
    for heard_of in range(1, 5):
        transports.handle()
        assert transports.ports == {"obfs4": 4711}
        assert unread(pipes[0]) == max(0, len(said) - heard_of * LIMIT)
    os.close(pipes[0])


def unread(pipe: int) -> int:
    """Return the bytes in a pipe (pipe(7), FIONREAD)."""
    found = fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))
    return int.from_bytes(found, sys.byteorder)


def test_why_it_does_not_start_is_told(tmp_path: Path) -> None:
    transports = heard(tmp_path, b"ENV-ERROR no state\n")

    assert transports.trouble == "the bridges' transport does not start"


def heard(
    folder: Path, said: bytes, clock: Callable[[], float] = time.monotonic
) -> Transports:
    """Return one that was started, and whose program says this."""
    pipes: list[int] = []
    transports = begun(Berthed(pipes), folder, clock=clock)
    os.write(pipes[0], said)
    transports.handle()
    os.close(pipes[0])
    return transports

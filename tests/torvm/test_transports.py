# SPDX-License-Identifier: GPL-2.0-or-later
"""The program of the bridges' transports, started as a user of its own.

The real obfs4proxy runs here, told as the launcher is told.
"""

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.torvm.fakes import FakeBerth
from torvm.transports import PAUSE, PROGRAMS, Transports

OBFS4 = frozenset({"obfs4"})
BECOME = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.execv(sys.argv[2], sys.argv[2:])"
)
PATIENCE = 20.0  # seconds; only a failing test waits that long


@dataclass
class Launching(FakeBerth):
    """A berth whose launcher becomes what it is told, as ourselves."""

    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start(
        self,
        argv: Sequence[str],
        files: Sequence[int] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        (pipe,) = files
        # As `agent.launcher`: the files are 3 and more, nothing else is open.
        words = [sys.executable, "-c", BECOME, str(pipe), *argv]
        made = subprocess.Popen(words, env=dict(env or {}), pass_fds=[pipe])
        self.processes.append(made)
        self.waiting, self.running = False, True


@pytest.fixture
def berth() -> Iterator[Launching]:
    made = Launching()
    yield made
    for each in made.processes:
        each.kill()
        each.wait()


def until_spoken(transports: Transports) -> None:
    deadline = time.monotonic() + PATIENCE
    while not transports.ports:
        left = deadline - time.monotonic()
        assert left > 0, transports.trouble
        assert select.select([transports], [], [], left)[0]
        transports.handle()


def test_the_real_program_speaks_at_a_port_of_its_own(
    berth: Launching, tmp_path: Path
) -> None:
    transports = Transports(OBFS4, berth, str(tmp_path))
    berth.come()
    transports.handle()
    until_spoken(transports)

    assert transports.ports.keys() == OBFS4
    assert 0 < transports.ports["obfs4"] < 65536
    assert transports.trouble == ""


def test_when_it_ends_it_speaks_nowhere_and_is_started_again(
    berth: Launching, tmp_path: Path
) -> None:
    moment = [100.0]
    transports = Transports(OBFS4, berth, str(tmp_path), lambda: moment[0])
    berth.come()
    transports.handle()
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
    transports, pipe = listening(tmp_path)
    os.write(pipe, said)
    transports.handle()
    os.close(pipe)

    assert transports.ports == ports


def test_why_it_does_not_start_is_told(tmp_path: Path) -> None:
    transports, pipe = listening(tmp_path)
    os.write(pipe, b"ENV-ERROR no state\n")
    transports.handle()
    os.close(pipe)

    assert transports.trouble == "the bridges' transport does not start"


def listening(folder: Path) -> tuple[Transports, int]:
    """Return one that was started, and where it is to be heard from."""
    pipes: list[int] = []

    class Berth(FakeBerth):
        def start(
            self,
            argv: Sequence[str],
            files: Sequence[int] = (),
            env: Mapping[str, str] | None = None,
        ) -> None:
            assert argv[-1] in PROGRAMS
            assert env is not None
            assert env["TOR_PT_CLIENT_TRANSPORTS"] == "obfs4"
            pipes.append(os.dup(files[0]))
            self.waiting, self.running = False, True

    berth = Berth()
    transports = Transports(OBFS4, berth, str(folder))
    berth.come()
    transports.handle()
    return transports, pipes[0]

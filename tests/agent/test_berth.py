# SPDX-License-Identifier: GPL-2.0-or-later
"""A daemon is started as its own user, by who may not become anyone else.

The launcher is the real program, as the user that the berth is for.
"""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.berth import CARRIERS, END, Berth, uid_of
from tests.lab.enterable import enterable

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]
DAEMON, SOMEBODY, AGENT = 61600, 61601, 61602
PATIENCE = 20.0  # seconds; only a failing test waits that long
TELL = (
    "import os, sys; "
    "print(os.getuid(), os.read(3, 9).decode(), os.read(4, 9).decode(), "
    "os.environ['WORD'], oct(os.umask(0)), flush=True); sys.stdin.read()"
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "berth"
    made.mkdir()
    enterable(made)
    meeting = tmp_path / "daemon" / "tor"
    meeting.mkdir(parents=True)
    os.chown(meeting, DAEMON, AGENT)
    meeting.chmod(0o2770)
    return made


@pytest.fixture
def berth(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Berth]:
    monkeypatch.setenv(CARRIERS, f"other=1 tor={DAEMON}")
    made = Berth("tor", directory, directory.parent / "daemon")
    yield made
    made.close()


Launch = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def launch(directory: Path) -> Iterator[Launch]:
    started: list[subprocess.Popen[str]] = []

    def run(uid: int = DAEMON) -> "subprocess.Popen[str]":
        code = (
            f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
            "from pathlib import Path\nfrom agent.launcher import become\n"
            f"here = Path({str(directory)!r})\n"
            "become('tor', here, here.parent / 'daemon')"
        )
        argv = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
        argv += ["--bounding-set=-all", "/usr/bin/python3", "-I", "-c", code]
        made = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(made)
        return made

    yield run
    for each in started:
        each.kill()
        each.communicate()


def until(berth: Berth, found: Callable[[], bool]) -> None:
    """Handle what the berth is readable for until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not found():
        left = deadline - time.monotonic()
        ready = left > 0 and select.select([berth], [], [], left)[0]
        assert ready, f"waiting: {berth.waiting}, running: {berth.running}"
        berth.handle()


def file_with(text: bytes) -> int:
    made = os.memfd_create("told")
    os.write(made, text)
    os.lseek(made, 0, os.SEEK_SET)
    return made


def start(berth: Berth) -> None:
    files = [file_with(b"one"), file_with(b"two")]
    berth.start([sys.executable, "-c", TELL], files, {"WORD": "word"})
    for each in files:
        os.close(each)


def test_a_launcher_becomes_what_it_is_told(berth: Berth, launch: Launch) -> None:
    launcher = launch()
    until(berth, lambda: berth.waiting)
    start(berth)

    assert launcher.stdout is not None
    assert launcher.stdout.readline() == f"{DAEMON} one two word 0o7\n"
    assert berth.running
    assert not berth.waiting


def test_the_end_of_a_daemon_is_noticed_and_the_next_one_may_come(
    berth: Berth, launch: Launch
) -> None:
    launcher = launch()
    until(berth, lambda: berth.waiting)
    start(berth)
    launcher.kill()
    until(berth, lambda: not berth.running)

    assert not berth.waiting
    launch()
    until(berth, lambda: berth.waiting)


def test_who_comes_before_the_agent_waits_for_it(
    directory: Path, launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch()
    monkeypatch.setenv(CARRIERS, f"tor={DAEMON}")
    berth = Berth("tor", directory, directory.parent / "daemon")
    until(berth, lambda: berth.waiting)
    berth.close()


def test_somebody_else_is_not_let_in(
    berth: Berth, launch: Launch, directory: Path
) -> None:
    """The control is the launcher that comes after."""
    stranger = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stranger.connect(str(directory / "tor"))
    stranger.settimeout(PATIENCE)
    berth.handle()

    assert not berth.waiting
    assert stranger.recv(1) == b""
    stranger.close()
    launch()
    until(berth, lambda: berth.waiting)


def test_who_comes_again_and_again_is_looked_at_one_at_a_time(
    berth: Berth, directory: Path
) -> None:
    """A daemon that was taken over may come without a pause."""
    comers = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in "ab"]
    for each in comers:
        each.settimeout(PATIENCE)
        each.connect(str(directory / "tor"))
    first, second = comers
    berth.handle()

    assert first.recv(1) == b""
    assert not select.select([second], [], [], 0)[0]
    assert select.select([berth], [], [], PATIENCE)[0]
    berth.handle()
    assert second.recv(1) == b""
    for each in comers:
        each.close()


def test_a_second_one_is_sent_away(berth: Berth, launch: Launch) -> None:
    launch()
    until(berth, lambda: berth.waiting)
    second = launch()
    assert select.select([berth], [], [], PATIENCE)[0]
    berth.handle()

    assert second.wait(PATIENCE) == 1
    assert berth.waiting


def test_nothing_is_started_without_a_launcher(berth: Berth) -> None:
    with pytest.raises(ConnectionError, match="no launcher waits"):
        berth.start(["/bin/true"])


def test_an_agent_that_ends_lets_the_launcher_go_and_the_daemon_live(
    berth: Berth, launch: Launch
) -> None:
    waiting = launch()
    until(berth, lambda: berth.waiting)
    berth.close()
    assert waiting.wait(PATIENCE) == 1


def test_an_agent_that_ends_before_it_lets_the_launcher_in_is_no_error(
    berth: Berth, launch: Launch
) -> None:
    waiting = launch()
    assert select.select([berth], [], [], PATIENCE)[0]
    berth.close()

    assert waiting.wait(PATIENCE) == 1
    assert waiting.stderr is not None
    assert waiting.stderr.read() == ""


def test_the_user_of_a_daemon_is_named_by_who_starts_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(CARRIERS, "tor=7 pt=8")
    assert uid_of("pt") == 8
    with pytest.raises(LookupError):
        uid_of("ravelin-nobody")


def started(berth: Berth, launch: Launch) -> "subprocess.Popen[str]":
    """Return a launcher that has become the daemon."""
    launcher = launch()
    until(berth, lambda: berth.waiting)
    start(berth)
    assert launcher.stdout is not None
    assert launcher.stdout.readline()
    return launcher


def test_one_that_hears_nothing_any_more_is_ended(
    berth: Berth, launch: Launch, directory: Path
) -> None:
    """By the next agent too, which knows of it by the FIFO alone."""
    launcher = started(berth, launch)
    launcher.send_signal(signal.SIGSTOP)
    berth.close()
    later = Berth("tor", directory, directory.parent / "daemon")
    later.end()
    later.close()

    assert launcher.wait(PATIENCE) == -signal.SIGKILL


def test_who_is_of_the_group_ends_it_and_nobody_else(
    berth: Berth, launch: Launch, directory: Path
) -> None:
    """Without any right, as the agent is: it may not send the signal itself."""
    launcher = started(berth, launch)
    fifo = directory.parent / "daemon" / "tor" / END
    write = "import os, sys; os.write(os.open(sys.argv[1], os.O_WRONLY), b'x')"
    kill = "import os, sys; os.kill(int(sys.argv[1]), 9)"

    assert as_user(SOMEBODY, write, fifo) != 0
    assert as_user(AGENT, kill, launcher.pid) != 0
    assert launcher.poll() is None
    assert as_user(AGENT, write, fifo) == 0
    assert launcher.wait(PATIENCE) == -signal.SIGKILL


def as_user(uid: int, code: str, word: object) -> int:
    argv = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    argv += ["--bounding-set=-all", "--inh-caps=-all"]
    argv += [sys.executable, "-I", "-c", code, str(word)]
    return subprocess.run(argv, stderr=subprocess.DEVNULL, check=False).returncode


@pytest.mark.parametrize(
    ("made_by", "link", "found"),
    [(DAEMON, False, b"\0"), (DAEMON, True, b""), (SOMEBODY, False, b"")],
    ids=["its own", "a link", "somebody else's"],
)
def test_nothing_is_written_but_to_a_fifo_of_the_daemon(
    berth: Berth, directory: Path, made_by: int, found: bytes, *, link: bool
) -> None:
    fifo = directory.parent / "daemon" / "tor" / END
    there = fifo.with_name("elsewhere") if link else fifo
    os.mkfifo(there)
    os.chown(there, made_by, made_by)
    if link:
        fifo.symlink_to(there)
    reader = os.open(there, os.O_RDONLY | os.O_NONBLOCK)
    keeper = os.open(there, os.O_WRONLY)  # or it would say that it has ended

    berth.end()
    try:
        assert os.read(reader, 9) == found
    except BlockingIOError:
        assert found == b""
    finally:
        os.close(reader)
        os.close(keeper)


def test_nothing_is_written_to_a_file(berth: Berth, directory: Path) -> None:
    file = directory.parent / "daemon" / "tor" / END
    file.write_bytes(b"")
    os.chown(file, DAEMON, DAEMON)

    berth.end()
    assert file.read_bytes() == b""

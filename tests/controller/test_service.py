# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon as a process: one for each directory, and no remains."""

import fcntl
import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest

from controller import client, enter, service
from controller.admin import Answer, Request
from controller.platforms.netns import RUNTIME, Netns
from controller.service import (
    ADMIN,
    ANOTHER,
    serve,
    served_by,
    state_beside,
    sweep,
)

# Nobody waits for the daemon: it outlives the command that started it.
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.filterwarnings("ignore:subprocess .* is still running"),
]
DEADLINE = 20.0

NOTHING = Answer({"domains": [], "proof": None, "confirm": None})


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    with suppress(client.NotRunningError):
        client.ask(tmp_path / ADMIN, Request("down"), lambda _: None)
        ended(tmp_path)
    sweep(tmp_path)


def ended(runtime: Path) -> None:
    """Wait until no daemon has the lock."""
    with (runtime / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


def start(path: Path) -> list[str]:
    """Start the daemon; return what was told meanwhile."""
    told: list[str] = []
    service.start(path, told.append)
    return told


def status(runtime: Path) -> object:
    return client.ask(runtime / ADMIN, Request("status"), lambda _: None)


def test_it_listens_when_start_returns_and_ends_with_down(runtime: Path) -> None:
    start(runtime / ADMIN)

    assert status(runtime) == NOTHING
    client.ask(runtime / ADMIN, Request("down"), lambda _: None)
    ended(runtime)
    assert not (runtime / ADMIN).exists()
    with pytest.raises(client.NotRunningError):
        status(runtime)


def test_a_daemon_that_was_killed_is_in_nobodys_way(runtime: Path) -> None:
    start(runtime / ADMIN)
    Netns(runtime).start("left")
    process = os.pidfd_open(served_by(runtime / ADMIN) or 0)
    signal.pidfd_send_signal(process, signal.SIGKILL)
    select.select([process], [], [], DEADLINE)
    os.close(process)
    assert (runtime / ADMIN).exists()

    start(runtime / ADMIN)

    assert status(runtime) == NOTHING
    assert not Netns(runtime).exists("left")


def test_two_that_start_at_once_get_one_daemon(runtime: Path) -> None:
    failed: list[OSError] = []

    def begin() -> None:
        try:
            start(runtime / ADMIN)
        except OSError as error:
            failed.append(error)

    both = [Thread(target=begin) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join(DEADLINE)

    assert failed == []
    assert status(runtime) == NOTHING


def test_a_second_daemon_touches_nothing(
    runtime: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Netns(runtime).start("ours")
    with (runtime / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        where = ["--runtime", str(runtime), "--state", str(runtime / "state")]
        assert serve(where) == ANOTHER

    assert "another daemon" in capsys.readouterr().err
    assert Netns(runtime).exists("ours")


def test_a_daemon_that_cannot_start_says_why(runtime: Path) -> None:
    (runtime / "state").mkdir()
    (runtime / "state" / "numbers.json").write_text("{")

    with pytest.raises(OSError, match=r"does not start: .*numbers\.json: Expecting"):
        start(runtime / ADMIN)

    (runtime / "state" / "numbers.json").unlink()
    start(runtime / ADMIN)
    assert status(runtime) == NOTHING


def test_who_may_not_write_there_is_told_to_be_root(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "mkdir", refused)

    with pytest.raises(client.NotAllowedError):
        start(runtime / "new" / ADMIN)


def test_a_socket_that_no_daemon_would_have_is_not_waited_for(runtime: Path) -> None:
    with pytest.raises(OSError, match=f"expected .*/{ADMIN}"):
        start(runtime / "mine.sock")

    assert list(runtime.iterdir()) == []


def test_a_daemon_that_is_slow_to_start_is_told_of(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "PATIENCE", 0.0)

    (said,) = start(runtime / ADMIN)

    assert said.startswith("starting the daemon")


def test_a_daemon_that_never_listens_is_ended(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "START_WITHIN", 0.0)
    with pytest.raises(OSError, match="does not start"):
        start(runtime / ADMIN)

    ended(runtime) if (runtime / "lock").exists() else None
    with pytest.raises(client.NotRunningError):
        status(runtime)


def test_a_start_that_is_broken_off_leaves_no_daemon(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_off(*_: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(service, "listens", broken_off)
        with pytest.raises(KeyboardInterrupt):
            start(runtime / ADMIN)

    words = (path.read_bytes() for path in Path("/proc").glob("[1-9]*/cmdline"))
    assert not any(str(runtime).encode() in each for each in words)


def test_sweep_ends_what_is_below_its_directory_and_no_more(
    runtime: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Netns(tmp_path_factory.mktemp("other"))
    other.start("theirs")
    Netns(runtime).start("ours")
    try:
        sweep(runtime)
        sweep(runtime)

        assert Netns(runtime).names() == ()
        assert other.exists("theirs")
    finally:
        other.sweep()


def test_sweep_takes_the_sockets_that_agents_asked_by(tmp_path: Path) -> None:
    stale = tmp_path / "db" / "sys-net.sock"
    stale.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(str(stale))

    sweep(tmp_path)

    assert list(stale.parent.iterdir()) == []


def test_every_directory_has_its_own_numbers(tmp_path: Path) -> None:
    assert state_beside(RUNTIME) == service.STATE
    assert state_beside(tmp_path) == tmp_path / "state"


def test_the_directory_is_for_root_alone(tmp_path: Path) -> None:
    runtime = tmp_path / "new"
    start(runtime / ADMIN)
    try:
        modes = {p.name: p.stat().st_mode & 0o777 for p in (runtime, runtime / "db")}
        assert modes == {"new": 0o700, "db": 0o700}
    finally:
        client.ask(runtime / ADMIN, Request("down"), lambda _: None)
        ended(runtime)


@pytest.mark.parametrize("words", [["--disposable"], []])
def test_what_cannot_be_entered_is_said(
    runtime: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    asked = ["--runtime", str(runtime), *words, "nowhere", "--", "true"]

    assert enter.main(asked) == 3
    assert "ravelin: nowhere: " in capsys.readouterr().err


def test_a_command_gets_its_words_as_they_are(runtime: Path) -> None:
    Netns(runtime).start("here")
    script = '[ "$*" = "-- -c --" ]'
    asked = ["--runtime", str(runtime), "here", "--", "sh", "-c", script, "sh"]

    assert enter.main([*asked, "--", "-c", "--"]) == 0
    assert enter.main([*asked, "-c", "--"]) == 1

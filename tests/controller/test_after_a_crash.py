# SPDX-License-Identifier: GPL-2.0-or-later
"""A daemon that crashed leaves its socket; the command is not fooled by it."""

import socket
from pathlib import Path

import pytest

from controller import cli, client
from controller.admin import Answer, Exit, Reply, Request
from controller.service import listens


@pytest.fixture
def stale(tmp_path: Path) -> Path:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(str(path))
    return path


def test_a_socket_that_a_crash_left_is_not_a_daemon(
    stale: Path, tmp_path: Path
) -> None:
    assert not listens(stale)
    assert not listens(tmp_path / "none")
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(str(tmp_path / "daemon"))
        daemon.listen()
        assert listens(tmp_path / "daemon")


@pytest.mark.parametrize("verb", ["down", "status"])
def test_down_after_a_crash_has_a_daemon_sweep(
    stale: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    verb: str,
) -> None:
    started: list[Path] = []

    def ask(path: Path, _request: Request, _tell: object) -> Reply:
        if path not in started:
            raise client.NotRunningError(path)
        return Answer({"changes": []})

    monkeypatch.setattr(cli, "ask", ask)

    status = cli.main(
        ["--socket", str(stale), verb], start=lambda path, _: started.append(path)
    )

    if verb == "down":
        assert (status, started) == (Exit.OK, [stale])
    else:
        assert (status, started) == (Exit.NOT_ENFORCED, [])
        assert "without `ravelin down`" in capsys.readouterr().err


def test_down_of_nothing_starts_nothing(tmp_path: Path) -> None:
    started: list[Path] = []

    status = cli.main(
        ["--socket", str(tmp_path / "s"), "down"],
        start=lambda path, _: started.append(path),
    )

    assert (status, started) == (Exit.NOT_ENFORCED, [])

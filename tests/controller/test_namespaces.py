# SPDX-License-Identifier: GPL-2.0-or-later
"""Namespaces are files: whoever has the path can enter, empty and remove them."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from controller import namespaces
from tests.controller.own_machine import many_files

pytestmark = pytest.mark.kernel

IDLE = [
    sys.executable,
    "-I",
    "-c",
    "import sys; print(1, flush=True); sys.stdin.read()",
]


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "net"
    namespaces.create(path)
    yield path
    if path.exists():
        namespaces.kill_all(path)
    namespaces.remove(path)


def idle(net: Path) -> subprocess.Popen[bytes]:
    process = namespaces.spawn(
        IDLE, net=net, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"1\n"
    return process


def ended(process: subprocess.Popen[bytes]) -> int:
    for stream in (process.stdin, process.stdout):
        assert stream is not None
        stream.close()
    return process.wait(20)


def here() -> int:
    return Path("/proc/thread-self/ns/net").stat().st_ino


def test_a_new_namespace_has_only_a_loopback(net: Path) -> None:
    with namespaces.inside(net):
        assert [name for _, name in socket.if_nameindex()] == ["lo"]


def test_inside_returns_home_even_after_an_error(net: Path) -> None:
    home = here()
    with suppress(KeyError), namespaces.inside(net):
        assert here() == net.stat().st_ino
        raise KeyError
    assert here() == home


def test_inside_moves_no_other_thread(net: Path) -> None:
    home, seen = here(), []
    go, done = threading.Event(), threading.Event()

    def look() -> None:
        go.wait(20)
        seen.append(here())
        done.set()

    watcher = threading.Thread(target=look)
    watcher.start()
    with namespaces.inside(net):
        go.set()
        assert done.wait(20)
    watcher.join()
    assert seen == [home]


def test_a_second_create_is_refused_and_harms_nothing(net: Path) -> None:
    inode = net.stat().st_ino
    with pytest.raises(FileExistsError):
        namespaces.create(net)
    assert net.stat().st_ino == inode


def test_every_process_inside_is_found_and_no_other(net: Path) -> None:
    assert namespaces.processes(net) == ()
    process = idle(net)
    assert namespaces.processes(net) == (process.pid,)
    namespaces.kill_all(net)
    assert ended(process) == -9
    assert namespaces.processes(net) == ()


def test_kill_all_ends_several_and_their_children(net: Path) -> None:
    fork = [sys.executable, "-I", "-c", f"import os; os.fork(); {IDLE[3]}"]
    first = idle(net)
    second = namespaces.spawn(
        fork, net=net, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert second.stdout is not None
    assert second.stdout.readline() + second.stdout.readline() == b"1\n1\n"
    assert len(namespaces.processes(net)) == 3
    namespaces.kill_all(net)
    assert namespaces.processes(net) == ()
    assert (ended(first), ended(second)) == (-9, -9)


def test_kill_all_is_not_stopped_by_many_open_files(net: Path) -> None:
    process = idle(net)
    with many_files():
        namespaces.kill_all(net)

    assert ended(process) == -9


def test_remove_lets_the_file_go_and_may_be_repeated(net: Path) -> None:
    namespaces.remove(net)
    namespaces.remove(net)
    assert not net.exists()
    assert str(net) not in Path("/proc/self/mounts").read_text()


def test_a_file_whose_mount_never_happened_is_removed(tmp_path: Path) -> None:
    left = tmp_path / "left"
    left.touch()
    namespaces.remove(left)
    assert not left.exists()


@pytest.mark.parametrize(
    "act", [namespaces.enter, namespaces.processes], ids=["enter", "processes"]
)
def test_a_missing_namespace_is_an_error_that_names_it(
    act: object, tmp_path: Path
) -> None:
    assert callable(act)
    with pytest.raises(FileNotFoundError, match="absent"):
        act(tmp_path / "absent")


def test_entering_something_else_is_refused(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    home = here()
    with pytest.raises(OSError, match="plain"), namespaces.inside(plain):
        raise AssertionError
    assert here() == home

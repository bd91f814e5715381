# SPDX-License-Identifier: GPL-2.0-or-later
"""Network namespaces as files: make, enter, empty and remove them.

A namespace lives as long as its file, a bind mount of ``/proc/…/ns/net``
(namespaces(7)), so any later process can find it, see who is inside, and
clear it away after a crash.  Everything here needs CAP_SYS_ADMIN.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from controller.readable import readable
from controller.syscalls import CLONE_NEWNET, MS_BIND, mount, setns, unmount, unshare

MINE = "/proc/thread-self/ns/net"


def create(path: Path) -> None:
    """Make an empty network namespace and hold it by the file ``path``.

    Even its loopback is down.  FileExistsError if the file is there already.
    """
    path.touch(mode=0o400, exist_ok=False)
    with _returning():
        unshare(CLONE_NEWNET, str(path))
        mount(MINE, str(path), None, MS_BIND)


def remove(path: Path) -> None:
    """Let go of a namespace; nothing happens if there is none.

    The kernel destroys it, and the links in it, once no process is inside.
    """
    if path.exists():
        with suppress(OSError):  # a crash between the file and its mount
            unmount(str(path))
        path.unlink()


def enter(path: Path) -> None:
    """Move the calling thread into the namespace for good (setns(2))."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(descriptor, CLONE_NEWNET, str(path))
    finally:
        os.close(descriptor)


@contextmanager
def inside(path: Path) -> Iterator[None]:
    """Put the calling thread, and no other, into the namespace for a while.

    Sockets opened and processes started meanwhile stay there afterwards.
    """
    with _returning():
        enter(path)
        yield


def spawn(  # noqa: PLR0913 - the words of subprocess.Popen
    argv: Sequence[str],
    *,
    net: Path,
    env: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int | None = None,
    stderr: int | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a program inside ``net``, in a session of its own.

    The other words are those of `subprocess.Popen`, whose errors these are.
    """
    with inside(net):
        return subprocess.Popen(  # noqa: S603 - argv comes from the controller
            argv,
            env=env,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=pass_fds,
            start_new_session=True,
        )


def processes(path: Path) -> tuple[int, ...]:
    """Return the pids of the processes in the namespace, but never our own."""
    here = path.stat()
    pids = (int(entry.name) for entry in Path("/proc").glob("[1-9]*"))
    return tuple(pid for pid in pids if pid != os.getpid() and _is_in(pid, here))


def kill_all(path: Path, *, within: float = 5.0) -> None:
    """SIGKILL every process in the namespace and wait until all are gone.

    A pidfd is opened before the last look, so a recycled pid is never hit.
    TimeoutError if one is left after ``within`` seconds.
    """
    here = path.stat()
    deadline = time.monotonic() + within
    while pids := processes(path):
        with ExitStack() as stack:
            for pid in pids:
                _kill(pid, here, stack, deadline)
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path}: processes {pids} do not end")


def _kill(pid: int, here: os.stat_result, stack: ExitStack, deadline: float) -> None:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    stack.callback(os.close, handle)
    if _is_in(pid, here):
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        readable(handle, deadline - time.monotonic())


def _is_in(pid: int, here: os.stat_result) -> bool:
    try:
        return os.path.samestat(Path(f"/proc/{pid}/ns/net").stat(), here)
    except (FileNotFoundError, ProcessLookupError):  # it ended, or is a zombie
        return False
    except PermissionError:  # not even root may look: not started by us
        return False


@contextmanager
def _returning() -> Iterator[None]:
    home = os.open(MINE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        try:
            setns(home, CLONE_NEWNET, MINE)
        finally:
            os.close(home)

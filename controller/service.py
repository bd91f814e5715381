# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon as a process: where it keeps things, how it starts, one at a time."""

import fcntl
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from selectors import DefaultSelector
from typing import BinaryIO

from controller.admin_server import CREDENTIALS
from controller.client import PATIENCE, NotAllowedError
from controller.daemon import Daemon
from controller.databases import Databases
from controller.deploy import Deployment
from controller.handle import ROOT, Handler
from controller.journal import Journal
from controller.kernel_events import KernelEvents
from controller.numbers import Numbers
from controller.platforms.host_changes import HostChanges
from controller.platforms.netns import RUNTIME, Netns
from controller.platforms.ways_out import WaysOut
from controller.prover import Provers
from controller.supervise import Supervisor
from controller.syscalls import die_with_parent
from controller.trial import Trial
from controller.watch import Watch

STATE = Path("/var/lib/ravelin")
ADMIN, LOG = "admin.sock", "daemon.log"
OPEN_FILES = 1 << 16
"""As many as a daemon may need: up to eight for a domain, and 64 for an agent's.

Not all that the system gives: there are programs that close every one there could be.
"""
START_WITHIN = 120.0  # seconds; after a crash there may be much to take away
LOOK_EVERY = 0.02
ANOTHER = 4  # exit status: another daemon serves this directory


def serve(words: list[str]) -> int:
    """Be the daemon until ``down``; return the exit status.

    With ``--parent`` also no longer than that process, who has started it.
    """
    parser = ArgumentParser(prog="ravelin serve")
    parser.add_argument("--parent", type=int)
    parser.add_argument("--runtime", type=Path, default=RUNTIME)
    parser.add_argument("--state", type=Path, default=STATE)
    asked = parser.parse_args(words)
    if asked.parent is not None:
        die_with_parent(signal.SIGTERM)
        if _is_orphan(asked.parent):  # the kernel has nothing more to tell
            return 0
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = OPEN_FILES if most == resource.RLIM_INFINITY else min(most, OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
    for directory in (asked.runtime, asked.runtime / "db", asked.state):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Agents reach their own sockets by mounts, so nobody else needs to get in.
    with (asked.runtime / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.stderr.write("another daemon serves this directory\n")
            return ANOTHER
        # The file stays: who holds the lock of one that is gone is not alone.
        try:
            sweep(asked.runtime)
            _serve(asked.runtime, asked.state)
            if _is_orphan(asked.parent):
                sweep(asked.runtime)  # what the parent had started beside it
        except (OSError, ValueError) as error:
            sys.stderr.write(f"{error}\n")
            return 3
    return 0


def _is_orphan(parent: int | None) -> bool:
    return parent is not None and os.getppid() != parent


def _serve(runtime: Path, state: Path) -> None:
    selector = DefaultSelector()
    platform = Netns(runtime, state)
    ways_out = WaysOut(runtime, platform)
    supervisor = Supervisor(selector, time.monotonic)
    databases = Databases(selector, runtime / "db")
    deployment = Deployment(platform, ways_out.of, databases, supervisor)
    HostChanges(selector, deployment.follow)
    trial = Trial(state)
    trial.put_back()  # the controller ended before anybody confirmed it
    prover = Provers(selector, runtime)
    check, look = ways_out.check, ways_out.look
    handler = Handler(
        deployment, Numbers(state), Journal(), runtime, check, trial, prover
    )
    watch = Watch(prover, handler.standing, handler.verifier.scene)
    watch.events = KernelEvents(selector, platform.net, watch.changed)
    platform.before_stop = watch.events.forget
    Daemon(selector, handler, supervisor, runtime / ADMIN, look=look, watch=watch).run()


def sweep(runtime: Path) -> None:
    """Remove all that a daemon that crashed has left, and only that."""
    platform = Netns(runtime)
    WaysOut(runtime, platform).sweep()
    platform.sweep()
    for socket_of_a_domain in (runtime / "db").glob("*.sock"):
        socket_of_a_domain.unlink()


def start(path: Path, tell: Callable[[str], None], *, outlives_us: bool = True) -> None:
    """Start the daemon whose admin socket this is; return when it listens.

    What takes longer than `PATIENCE` is told.  OSError with its last words if it
    does not come up, `NotAllowedError` if we may not start it.  One that does not
    outlive us takes everything down when we end, however that is.
    """
    if path.name != ADMIN:
        raise OSError(f"--socket {path}: expected {path.with_name(ADMIN)}")
    runtime = path.parent
    with _appended(runtime / LOG) as output:
        where = ["--runtime", str(runtime), "--state", str(state_beside(runtime))]
        bound = [] if outlives_us else ["--parent", str(os.getpid())]
        daemon = subprocess.Popen(  # noqa: S603 (our own program)
            [sys.executable, "-I", str(ROOT), "controller", "serve", *where, *bound],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd="/",
        )
    try:
        _await(daemon, path, tell)
    except (OSError, KeyboardInterrupt):  # nobody has asked it for anything
        daemon.kill()
        daemon.wait()
        raise
    if served_by(path) not in (daemon.pid, None):
        # Somebody was quicker; ours must not take over when that one ends.
        daemon.kill()
        daemon.wait()


def _await(
    daemon: subprocess.Popen[bytes], path: Path, tell: Callable[[str], None]
) -> None:
    begun, patient = time.monotonic(), True
    while not listens(path):
        waited = time.monotonic() - begun
        if patient and waited > PATIENCE:
            tell("starting the daemon, which takes away what an earlier one left")
            patient = False
        if waited > START_WITHIN or daemon.poll() not in (None, ANOTHER):
            log = path.with_name(LOG).read_text(errors="replace")
            last = log.strip().splitlines()[-1:]
            raise OSError(f"the daemon does not start: {' '.join(last)}")
        time.sleep(LOOK_EVERY)


def _appended(log: Path) -> BinaryIO:
    """Open the log of a daemon, or raise `NotAllowedError`."""
    try:
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return log.open("ab")
    except PermissionError as error:
        raise NotAllowedError(str(log)) from error


def listens(path: Path) -> bool:
    """Whether a daemon accepts connections there; a crash leaves the file."""
    return served_by(path) is not None


def served_by(path: Path) -> int | None:
    """Return the pid of the daemon that accepts connections there, if any."""
    with socket.socket(socket.AF_UNIX) as asking:
        if asking.connect_ex(str(path)):
            return None
        raw = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    pid: int = CREDENTIALS.unpack(raw)[0]
    return pid


def state_beside(runtime: Path) -> Path:
    """Return where the numbers of a runtime directory are kept."""
    return STATE if runtime == RUNTIME else runtime / "state"

# SPDX-License-Identifier: GPL-2.0-or-later
"""Wait as a daemon's own user until the agent says what to become (`agent.berth`).

``launcher NAME`` is all that it is told.  It has no rights, and what it becomes
has none either.
"""

import fcntl
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import NoReturn

from agent.berth import BERTHS, DAEMONS, END

FIRST = 3  # of the descriptors that are not stdin, stdout or stderr
MAX_FILES = 8
MAX_MESSAGE = 1 << 16  # bytes
PAUSE = 0.2  # seconds between two looks whether the agent is there
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def come(berth: Path) -> socket.socket:
    """Return a connection to the agent, once there is one."""
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.connect(str(berth))
        except OSError:
            connection.close()
            time.sleep(PAUSE)
        else:
            return connection


def mortal(path: Path) -> int:
    """Make a FIFO that ends this process, whatever becomes of it; return it.

    A byte in it is an event of which the kernel tells by the signal of our choice
    (F_SETSIG and F_SETOWN, fcntl(2)), with our rights, not those of who wrote it.
    """
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    # Open for both, so it is no event that a writer goes.
    fifo = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    fcntl.fcntl(fifo, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fifo, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(fifo, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
    return fifo


def become(name: str, directory: Path = BERTHS, daemons: Path = DAEMONS) -> NoReturn:
    """Become what the agent sends; end with 1 if it goes without a word."""
    connection = come(directory / name)
    try:
        message, files, _, _ = socket.recv_fds(connection, MAX_MESSAGE, MAX_FILES)
    except ConnectionError:  # it went before it let us in
        sys.exit(1)
    if not message:
        sys.exit(1)
    told = json.loads(message)
    # Whoever may write to what the daemon makes is of its group.
    os.umask(0o007)
    kept = [*files, connection.fileno(), mortal(daemons / name / END)]
    # First out of the way, for one may stand where another is to be.
    spare = FIRST + len(kept)
    moved = [fcntl.fcntl(each, fcntl.F_DUPFD, spare) for each in kept]
    for number, descriptor in enumerate(moved, FIRST):
        os.dup2(descriptor, number, inheritable=True)
    os.closerange(spare, os.sysconf("SC_OPEN_MAX"))
    env = {"LANG": "C.UTF-8", "PATH": PATH, **told["env"]}
    os.execve(told["argv"][0], told["argv"], env)  # noqa: S606 - the agent's words


if __name__ == "__main__":
    # Told to end while it waits, it says nothing about that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    become(sys.argv[1])

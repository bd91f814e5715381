# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a daemon of this domain is started, as another user than the agent.

The agent may not become anyone else, and has rights that no daemon should have.
So the service manager keeps a launcher (`agent.launcher`) running as the
daemon's user.  It waits here; what it is sent it becomes, and its end of the
connection stays open in the daemon: when that closes, the daemon has ended, and
the next launcher comes by itself.

The agent may not kill anybody either.  A daemon that hears nothing any more has a
FIFO for that, ``/run/ravelin/daemon/NAME/end``: its kernel ends it when a byte comes.

``/run/ravelin/berth/NAME`` is a SOCK_SEQPACKET socket.  One message goes over
it, JSON with file descriptors beside it (unix(7), SCM_RIGHTS).
"""

import json
import os
import pwd
import select
import socket
import stat
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

BERTHS = Path("/run/ravelin/berth")
DAEMONS = Path("/run/ravelin/daemon")
"""Below it each daemon has a directory, where it and the agent meet."""
END = "end"
"""The file there that ends the daemon."""
CARRIERS = "RAVELIN_CARRIERS"
"""In the environment: ``NAME=UID`` of each daemon, with spaces between."""

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


def hosts_of(name: str, directory: Path = BERTHS) -> Path:
    """Return the file of hosts(5) that a daemon sees as /etc/hosts, the agent's own."""
    return directory / f"{name}.hosts"


def uid_of(name: str) -> int:
    """Return the user that a daemon runs as, or raise `LookupError`.

    Without a word in the environment it is the system user ``ravelin-NAME``.
    """
    given = dict(x.split("=", 1) for x in os.environ.get(CARRIERS, "").split())
    return int(given[name]) if name in given else pwd.getpwnam(f"ravelin-{name}").pw_uid


class Berth:
    """The place of one daemon.  ``uid`` is who it is."""

    def __init__(
        self, name: str, directory: Path = BERTHS, daemons: Path = DAEMONS
    ) -> None:
        self.uid = uid_of(name)
        self._end = daemons / name / END
        path = directory / name
        path.unlink(missing_ok=True)
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listening.setblocking(False)  # noqa: FBT003
        self._listening.bind(str(path))
        # Who may come in is asked below; nobody else reaches the directory.
        path.chmod(0o666)
        self._listening.listen(1)
        self._connection: socket.socket | None = None
        self._started = False
        self._ready = select.epoll()
        self._ready.register(self._listening, select.EPOLLIN)

    def fileno(self) -> int:
        """Return what is readable when a launcher came or a daemon ended."""
        return self._ready.fileno()

    @property
    def waiting(self) -> bool:
        """Whether a launcher waits to be told what to become."""
        return self._connection is not None and not self._started

    @property
    def running(self) -> bool:
        """Whether what was started here has not ended."""
        return self._connection is not None and self._started

    def handle(self) -> bool:
        """Take what happened; return whether anything did."""
        changed = self._has_ended()
        # One at a time: who comes again and again must not keep the agent here.
        with suppress(BlockingIOError):
            changed |= self._come(self._listening.accept()[0])
        return changed

    def start(
        self,
        argv: Sequence[str],
        files: Sequence[int] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Make the launcher that waits become a program, ``argv[0]`` its path.

        It has ``files`` as descriptors 3, 4, …  `OSError` if the launcher is no
        more; another one will come.
        """
        if self._connection is None or self._started:
            raise ConnectionError("no launcher waits")
        message = json.dumps({"argv": list(argv), "env": dict(env or {})}).encode()
        socket.send_fds(self._connection, [message], list(files))
        self._started = True

    def end(self) -> None:
        """Kill what runs here, also what an earlier agent has started.

        That it has ended is told as ever.  Where nothing runs nothing happens.
        """
        # The daemon could put another file there, but none that is worth a byte.
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW
        with suppress(OSError), os.fdopen(os.open(self._end, flags), "wb", 0) as fifo:
            status = os.fstat(fifo.fileno())
            if stat.S_ISFIFO(status.st_mode) and status.st_uid == self.uid:
                fifo.write(b"\0")

    def close(self) -> None:
        """Leave; a daemon that runs is left alone."""
        self._forget()
        self._listening.close()
        self._ready.close()

    def _come(self, connection: socket.socket) -> bool:
        size = _CREDENTIALS.size
        told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        _, uid, _ = _CREDENTIALS.unpack(told)
        if uid != self.uid or self._connection is not None:
            connection.close()
            return False
        connection.setblocking(False)  # noqa: FBT003
        self._connection, self._started = connection, False
        self._ready.register(connection, select.EPOLLIN | select.EPOLLRDHUP)
        return True

    def _has_ended(self) -> bool:
        if self._connection is None:
            return False
        try:
            ended = not self._connection.recv(1)  # nothing is ever said
        except BlockingIOError:
            return False
        except OSError:
            ended = True
        if ended:
            self._forget()
        return ended

    def _forget(self) -> None:
        if self._connection is not None:
            self._ready.unregister(self._connection)
            self._connection.close()
            self._connection, self._started = None, False

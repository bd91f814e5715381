# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the OpenVPN daemon comes to be managed: a unix socket of ours.

It connects to us (``management-client``), so that it ends when the connection
does, and never waits for anybody else.  Who it is the kernel says
(unix(7), SO_PEERCRED).
"""

import select
import socket
import struct
from contextlib import suppress
from pathlib import Path

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
_CHUNK = 1 << 16


class Door:
    """A listening socket at ``path`` for the user ``uid``, and one connection."""

    def __init__(self, path: Path, uid: int) -> None:
        self.path = path
        self._uid = uid
        path.unlink(missing_ok=True)
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.setblocking(False)  # noqa: FBT003
        self._listening.bind(str(path))
        # Only the daemon and we reach the directory, and who comes is asked.
        path.chmod(0o666)
        self._listening.listen(1)
        self._connection: socket.socket | None = None
        self._ready = select.epoll()
        self._ready.register(self._listening, select.EPOLLIN)

    def fileno(self) -> int:
        """Return what is readable when somebody comes, speaks or goes."""
        return self._ready.fileno()

    @property
    def open(self) -> bool:
        """Whether the daemon is there."""
        return self._connection is not None

    def handle(self) -> bool:
        """Let the daemon in if it came; return whether it did.

        One at a time: who comes again and again must not keep the agent here.
        """
        with suppress(BlockingIOError):
            return self._come(self._listening.accept()[0])
        return False

    def hear(self) -> bytes | None:
        """Return what was said since, empty if nothing, None if it has gone."""
        if self._connection is None:
            return None
        heard = b""
        try:
            while chunk := self._connection.recv(_CHUNK):
                heard += chunk
                if len(heard) >= _CHUNK:
                    return heard
        except BlockingIOError:
            return heard
        except OSError:
            heard = b""
        if not heard:
            self.leave()
            return None
        return heard  # that it has gone is seen next time

    def say(self, words: bytes) -> None:
        """Send; a daemon that does not listen is left."""
        if self._connection is None or not words:
            return
        try:
            self._connection.sendall(words)
        except OSError:  # also when the buffer is full: it hangs
            self.leave()

    def leave(self) -> None:
        """Close the connection, by which the daemon ends."""
        if self._connection is not None:
            self._connection.close()  # and so it leaves the epoll set
            self._connection = None

    def close(self) -> None:
        """Give all descriptors back."""
        self.leave()
        self._listening.close()
        self._ready.close()
        self.path.unlink(missing_ok=True)

    def _come(self, connection: socket.socket) -> bool:
        told = connection.getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
        )
        _, uid, _ = _CREDENTIALS.unpack(told)
        if uid != self._uid or self._connection is not None:
            connection.close()
            return False
        connection.setblocking(False)  # noqa: FBT003
        self._connection = connection
        self._ready.register(connection, select.EPOLLIN | select.EPOLLRDHUP)
        return True

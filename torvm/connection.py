# SPDX-License-Identifier: GPL-2.0-or-later
"""A socket on which a question never waits for its answer (control-spec, 2)."""

import math
import os
import re
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

CHUNK = 1 << 16  # bytes
AT_ONCE = 4  # chunks; who is talked to without a pause has other work too
LARGEST = 32 << 20  # bytes of one message; all relays there are take some 2 MB
COOKIE = 32  # bytes (control-spec, 3.24)
UCRED = struct.Struct("3i")  # unix(7)

_TAKEN = re.compile(r"^Vm(?:RSS|Swap):\s+([0-9]+) kB$", re.MULTILINE)  # proc(5)

Reply = Callable[[bytes], None]


def secret(path: str) -> bytes:
    """Return the cookie at ``path``, or raise `OSError`.

    Its directory is tor's.  One that was taken over could put a FIFO there, for which
    the agent would wait, or a link to what only the agent may read.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    place = os.open(path, flags)
    try:
        return os.read(place, COOKIE)
    finally:
        os.close(place)


class Messages:
    """Bytes in, whole messages out (control-spec, 2.3)."""

    def __init__(self) -> None:
        self._rest = b""
        self._lines: list[bytes] = []
        self._size = 0
        self._in_data = False

    def feed(self, untrusted_data: bytes) -> Iterator[bytes]:
        """Yield what is complete now; ConnectionError for what never ends."""
        *lines, self._rest = (self._rest + untrusted_data).split(b"\n")
        self._size += len(untrusted_data)
        for line in lines:
            self._lines.append(line + b"\n")
            if self._in_data:
                self._in_data = line != b".\r"
            elif line[3:4] == b"+":
                self._in_data = True
            elif line[3:4] != b"-":
                yield b"".join(self._lines)
                self._lines.clear()
                self._size = len(self._rest)
        if self._size > LARGEST:
            raise ConnectionError("a message without an end")


class Connection:
    """One connection to a control socket.  Every method may raise `OSError`."""

    def __init__(self, path: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(0)
        self._messages = Messages()
        self._unsent = b""
        self._replies: deque[tuple[Reply, float]] = deque()
        try:
            self._socket.connect(path)
            of_peer = socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size
            self._pid, self.uid, _ = UCRED.unpack(self._socket.getsockopt(*of_peer))
        except OSError:
            self.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def awaited(self) -> int:
        """Return the epoll events to wait for."""
        return select.EPOLLIN | (select.EPOLLOUT if self._unsent else 0)

    @property
    def waits_since(self) -> float:
        """When the first question without an answer was asked; `math.inf`: none."""
        return self._replies[0][1] if self._replies else math.inf

    def memory(self) -> int:
        """Return how many bytes the other end takes, 0 if the kernel does not say."""
        with suppress(OSError):
            told = Path(f"/proc/{self._pid}/status").read_text()
            return 1024 * sum(map(int, _TAKEN.findall(told)))
        return 0

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def ask(self, command: str, reply: Reply) -> None:
        """Send a command of one line; ``reply`` is called with the answer."""
        self._replies.append((reply, self._clock()))
        self._unsent += f"{command}\r\n".encode("ascii")
        self._flush()

    def events(self) -> Iterator[bytes]:
        """Yield the events that came; answers go to those who asked.

        What is more than `AT_ONCE` is there for the next call.
        """
        self._flush()
        for _ in range(AT_ONCE):
            try:
                untrusted_data = self._socket.recv(CHUNK)
            except BlockingIOError:
                return
            if not untrusted_data:
                raise ConnectionError("closed by the other end")
            for untrusted_message in self._messages.feed(untrusted_data):
                if untrusted_message.startswith(b"650"):
                    yield untrusted_message
                elif self._replies:
                    reply, _ = self._replies.popleft()
                    reply(untrusted_message)
                else:
                    raise ConnectionError("an answer to no question")

    def _flush(self) -> None:
        try:
            while self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            pass

# SPDX-License-Identifier: GPL-2.0-or-later
"""One question to one server, over UDP and if need be TCP, without blocking.

The socket is new for each question and connected: the kernel chooses a port at
random, and drops what other addresses and ports send to it.
"""

import select
import socket
from collections.abc import Callable
from errno import EINPROGRESS, errorcode

from rules.model import Address, Family, family

OpenSocket = Callable[[socket.AddressFamily, socket.SocketKind], socket.socket]

MAX_UDP = 4096
LENGTH = 2  # bytes before a message in TCP (RFC 1035, 4.2.2)
FAMILIES = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}


class Exchange:
    """A question on its way.  Everything here can raise `OSError`.

    ``server`` is an address and a port.
    """

    def __init__(
        self,
        server: tuple[Address, int],
        question: bytes,
        open_socket: OpenSocket = socket.socket,
    ) -> None:
        self._server = server
        self._open_socket = open_socket
        self.question = question
        self._unsent = b""
        self._received = b""
        self._over_tcp = False
        self._done = False
        self._socket = self._connected(socket.SOCK_DGRAM)
        try:
            self._socket.send(question)
        except OSError:
            self.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor; another one after `ask_over_tcp`."""
        return self._socket.fileno()

    def awaited(self) -> int:
        """Return the epoll events to wait for."""
        return select.EPOLLOUT if self._unsent else select.EPOLLIN

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def resend(self) -> None:
        """Send the question once more, over UDP."""
        self._socket.send(self.question)

    def ask_over_tcp(self) -> None:
        """Ask again, for the UDP reply was cut; at most once."""
        if self._over_tcp:
            raise ConnectionError("truncated over TCP")
        self._over_tcp = True
        self.close()
        self._socket = self._connected(socket.SOCK_STREAM)
        self._unsent = len(self.question).to_bytes(LENGTH, "big") + self.question

    def receive(self) -> bytes | None:
        """Return the next untrusted reply, `None` if there is none yet."""
        try:
            return self._advance() if self._over_tcp else self._socket.recv(MAX_UDP)
        except BlockingIOError:
            return None

    def _advance(self) -> bytes | None:
        if self._done:
            raise ConnectionError("not a reply to the question")
        if self._unsent:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
            return None
        while missing := self._missing():
            part = self._socket.recv(missing)
            if not part:
                raise ConnectionError("closed before the reply")
            self._received += part
        self._done = True
        return self._received[LENGTH:]

    def _missing(self) -> int:
        """Count the bytes to read next: of the length, then of the message."""
        wanted = LENGTH
        if len(self._received) >= LENGTH:
            wanted += int.from_bytes(self._received[:LENGTH], "big")
        return wanted - len(self._received)

    def _connected(self, kind: socket.SocketKind) -> socket.socket:
        address, port = self._server
        opened = self._open_socket(FAMILIES[family(address)], kind)
        opened.settimeout(0)
        problem = opened.connect_ex((str(address), port))
        if problem not in (0, EINPROGRESS):
            opened.close()
            raise OSError(problem, f"connect: {errorcode.get(problem, problem)}")
        return opened

# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a program that speaks SOCKS 5 still does, asked so that nothing comes of it.

The kernel takes connections for a program that hangs; to select a method (RFC 1928, 3)
takes one that lives.  It is offered one that nobody has, so its answer is that none is
acceptable, and with that both ends are done: no place outside was named to it, and it
waits for no more words, during which some take no other connection.
"""

import math
import select
import socket
from collections.abc import Callable, Iterable

HOST = "127.0.0.1"
QUIET = 10.0  # seconds from an answer to the next question
PATIENCE = 10.0  # seconds that an answer may take
QUESTION = b"\x05\x01\xfe"  # version, how many methods, one that is for private use
ANSWER = b"\x05\xff"  # version, no acceptable method


class Answering:
    """Asks ports of this host in turn; one that gives no answer is asked again."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.missed = 0
        """How many answers did not come, or were none, since the last that did."""
        self._clock = clock
        self._ports: tuple[int, ...] = ()
        self._turn = 0
        self._waits = False
        self._due = math.inf  # when to ask, or to have the answer
        self._socket: socket.socket | None = None
        self._said = False
        self._untrusted = b""
        self._ready = select.epoll()

    def fileno(self) -> int:
        """Return the descriptor to wait on, the same for ever."""
        return self._ready.fileno()

    def next_deadline(self) -> float:
        """Return when to call `handle` at the latest."""
        return self._due

    def look(self, ports: Iterable[int]) -> None:
        """Ask at these ports from now on; none: nobody."""
        found = tuple(sorted(ports))
        if found == self._ports:
            return
        self._hang_up()
        self._ports, self._turn, self.missed, self._waits = found, 0, 0, False
        self._due = self._clock() + QUIET if found else math.inf

    def handle(self) -> bool:
        """Take what came, and ask what is due; return whether `missed` is another."""
        before = self.missed
        self._talk()
        if self._clock() >= self._due:
            if self._waits:
                self.missed += 1
            self._ask()
        return self.missed != before

    def _ask(self) -> None:
        self._hang_up()
        self._waits, self._due = True, self._clock() + PATIENCE
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setblocking(False)  # noqa: FBT003
        # If it is refused, so is what is sent next.
        self._socket.connect_ex((HOST, self._ports[self._turn]))
        self._ready.register(self._socket, select.EPOLLOUT)

    def _talk(self) -> None:
        """Say what is to be said, and hear until there is an answer, or is none."""
        if self._socket is None:
            return
        try:
            if not self._said:
                self._socket.send(QUESTION)
                self._said = True
                self._ready.modify(self._socket, select.EPOLLIN)
            untrusted_data = self._socket.recv(len(ANSWER))
        except BlockingIOError:
            return
        except OSError:
            untrusted_data = b""
        self._untrusted += untrusted_data
        if untrusted_data and len(self._untrusted) < len(ANSWER):
            return
        if self._untrusted == ANSWER:
            self.missed, self._waits = 0, False
            self._turn = (self._turn + 1) % len(self._ports)
            self._due = self._clock() + QUIET
        # Anything else is no answer, which counts once it should be there.
        self._hang_up()

    def _hang_up(self) -> None:
        self._said, self._untrusted = False, b""
        if self._socket is not None:
            self._socket.close()  # which takes it out of the epoll set
            self._socket = None

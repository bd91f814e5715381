# SPDX-License-Identifier: GPL-2.0-or-later
"""A question to the resolver inside the tunnel, whose answer proves the tunnel.

It asks for the name servers of the root, which every resolver knows.  Any answer
counts, also a refusal: what matters is that it came back.
"""

import math
import secrets
import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress

from agent.exchange import FAMILIES
from rules.model import Address, family

AGAIN = 1.0  # seconds between two questions
DNS_PORT = 53
MOST = 4096

_HEADER = struct.Struct("!6H")  # id, flags, and the four counts (RFC 1035, 4.1.1)
_RECURSION = 0x0100
_ROOT_NS_IN = b"\0" + struct.pack("!2H", 2, 1)


class Probe:
    """Asks again and again until it is answered or told to stop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ready = select.epoll()
        self._socket: socket.socket | None = None
        self._resolvers: tuple[Address, ...] = ()
        self._turn = 0
        self._again = math.inf

    def fileno(self) -> int:
        """Return the descriptor, the same for the life of this object."""
        return self._ready.fileno()

    def next_deadline(self) -> float:
        """Return when to call `handle` at the latest."""
        return self._again

    def begin(self, resolvers: tuple[Address, ...]) -> None:
        """Ask these, one after the other, from now on."""
        if resolvers and (self._again == math.inf or resolvers != self._resolvers):
            self._resolvers, self._again = resolvers, self._clock()

    def stop(self) -> None:
        """Ask no more."""
        self._again = math.inf
        self._close()

    def handle(self) -> bool:
        """Ask what is due; return whether there was an answer, once."""
        if self._has_answer():
            self.stop()
            return True
        if self._clock() >= self._again:
            self._again = self._clock() + AGAIN
            self._ask(self._resolvers[self._turn % len(self._resolvers)])
            self._turn += 1
        return False

    def _ask(self, resolver: Address) -> None:
        self._close()
        made = socket.socket(FAMILIES[family(resolver)], socket.SOCK_DGRAM)
        made.setblocking(False)  # noqa: FBT003
        self._socket = made
        number = secrets.randbits(16)
        # There may be no way yet, and what is refused now is asked again.
        with suppress(OSError):
            made.connect((str(resolver), DNS_PORT))
            made.send(_HEADER.pack(number, _RECURSION, 1, 0, 0, 0) + _ROOT_NS_IN)
        self._ready.register(made, select.EPOLLIN)

    def _has_answer(self) -> bool:
        if self._socket is None:
            return False
        try:
            return bool(self._socket.recv(MOST))
        except BlockingIOError:
            return False
        except OSError:  # refused by the kernel, here or there: no proof
            self._close()
            return False

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()  # which takes it out of the epoll set
            self._socket = None

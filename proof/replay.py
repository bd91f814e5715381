# SPDX-License-Identifier: GPL-2.0-or-later
"""A counterexample, sent as a real packet and looked for where it should come out.

All of it happens in the network namespace of the thread; a socket stays in the
one in which it was opened (packet(7)).
"""

import select
import socket
from collections.abc import Iterator
from time import monotonic
from typing import Self

_EVERYTHING = 0x0003  # ETH_P_ALL
_SIZE = 65536  # bytes


def send(interface: str, data: bytes) -> None:
    """Put an Ethernet frame on an interface; OSError if it cannot be."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((interface, 0))
        wire.send(data)


class Watch:
    """Sees every frame of an interface from its construction on; ``with`` ends it."""

    def __init__(self, interface: str) -> None:
        """Begin to watch; OSError if there is no such interface."""
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_PACKET, kind)
        self._socket.bind((interface, _EVERYTHING))

    def close(self) -> None:
        """See no more."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def frames(self, seconds: float) -> Iterator[bytes]:
        """Yield the frames that come or go within so many seconds."""
        deadline = monotonic() + seconds
        while (left := deadline - monotonic()) > 0:
            if not select.select([self._socket], [], [], left)[0]:
                return
            yield self._socket.recv(_SIZE)

    def saw(self, mark: bytes, seconds: float) -> bool:
        """Return whether a frame that ends in this mark was seen in time."""
        return any(frame.rstrip(b"\0").endswith(mark) for frame in self.frames(seconds))

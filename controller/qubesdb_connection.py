# SPDX-License-Identifier: GPL-2.0-or-later
"""One client of a domain's QubesDB: bytes in, requests out, and back."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from selectors import EVENT_READ

from agent.qubesdb_wire import Decoder, Kind, Message, WireError, encode

CHUNK = 65536  # bytes of one read, and of an answer rendered ahead of the reader

_NO_ANSWER: Iterator[bytes] = iter(())


class GoneError(ConnectionError):
    """The client closed its end, or sent what is no message."""


@dataclass(slots=True, eq=False)
class Connection:
    """A connection: its input, its unsent output and the rest of its answer."""

    socket: socket.socket
    decoder: Decoder = field(default_factory=Decoder)
    output: bytearray = field(default_factory=bytearray)
    answer: Iterator[bytes] = _NO_ANSWER
    watches: list[str] = field(default_factory=list)
    interest: int = EVENT_READ

    def receive(self) -> None:
        """Read once, without waiting; `GoneError` at the end."""
        try:
            untrusted_data = self.socket.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            raise GoneError from error
        if not untrusted_data:
            raise GoneError
        self.decoder.feed(untrusted_data)

    def next_request(self) -> Message | None:
        """Return the next request, None until more is read, or `GoneError`."""
        try:
            return self.decoder.next_message()
        except WireError as error:
            raise GoneError from error

    def say(self, kind: Kind, path: str, data: bytes = b"") -> None:
        """Append a message to the output."""
        self.output += encode(Message(kind, path, data))

    def send(self) -> None:
        """Send once, as much as goes without waiting, or `GoneError`."""
        try:
            sent = self.socket.send(self.output)
        except BlockingIOError:
            return
        except OSError as error:
            raise GoneError from error
        del self.output[:sent]

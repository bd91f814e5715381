# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's end of QubesDB: what dom0 wants, and what it is told.

The caller is level-triggered: an event says *look again*, and so does a new
connection.  Every method that raises `Disconnected` or `ProtocolError` has
closed the connection; nothing here opens one but `QubesDb.connect`.
"""

import socket
import time
from collections.abc import Iterator
from contextlib import suppress

from agent.qubesdb_wire import Decoder, Kind, Message, WireError, check_entry, encode

# On Qubes OS, inside every VM.
SOCKET = "/var/run/qubes/qubesdb.sock"

_CHUNK = 65536  # bytes of one read
_MAX_ANSWER = 64 << 20  # bytes of one answer
_MAX_EVENTS = 65536  # received and not yet taken


class Disconnected(ConnectionError):  # noqa: N818 (it is a state, not a mistake)
    """There is no server, it went away, or it was silent for too long."""


class ProtocolError(ConnectionError):
    """What answers is not a QubesDB, or wants this end's memory."""


class RefusedError(ValueError):
    """The server understood the request and does not allow it."""


class QubesDb:
    """A client of one QubesDB, made unconnected; see `connect`.

    ``path`` is a unix stream socket, ``timeout`` how long in seconds one call
    may wait for the server.  For a loop over selectors, register the object
    itself: `fileno` is -1 while unconnected, as a socket's.
    """

    def __init__(self, path: str = SOCKET, *, timeout: float = 5.0) -> None:
        self._path = path
        self._timeout = timeout
        self._deadline = 0.0
        self._socket: socket.socket | None = None
        self._decoder = Decoder()
        self._events: list[str] = []
        self._watches: dict[str, None] = {}

    def connect(self) -> None:
        """Connect, or connect again, and register all watches.

        Then read everything anew: what changed while there was no connection
        fires no event, and events not yet taken are forgotten.  Raises
        `Disconnected` at once if nobody listens.
        """
        self.close()
        requests = [Message(Kind.WATCH, path) for path in self._watches]
        try:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            # A server too busy to accept is no reason to wait.
            self._socket.settimeout(0)
            self._socket.connect(self._path)
        except OSError as error:
            raise self._disconnected(str(error)) from error
        try:
            self._send(*requests)
            for request in requests:
                self._take_one(request, Kind.RESP_OK)
        except RefusedError as error:
            raise self._broken(str(error)) from error

    def close(self) -> None:
        """Drop the connection and its events; the watches are remembered."""
        self._decoder = Decoder()
        self._events.clear()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def fileno(self) -> int:
        """Return the descriptor that is readable when events come, or -1.

        Call `take_events` before waiting on it: a request may have received
        events together with its answer.
        """
        return -1 if self._socket is None else self._socket.fileno()

    def read(self, path: str) -> bytes | None:
        """Return the value of one key, or None if there is none."""
        answer = self._ask(Message(Kind.READ, path), Kind.RESP_READ)
        return None if answer is None else answer.data

    def multiread(self, prefix: str) -> dict[str, bytes]:
        """Return keys and values of all keys that start with these characters."""
        parts = self._ask_many(Message(Kind.MULTIREAD, prefix), Kind.RESP_MULTIREAD)
        return {part.path: part.data for part in parts}

    def list(self, prefix: str) -> tuple[str, ...]:
        """Return all keys that start with these characters."""
        parts = self._ask_many(Message(Kind.LIST, prefix), Kind.RESP_LIST)
        return tuple(part.path for part in parts)

    def write(self, path: str, data: bytes) -> None:
        """Store a value; our own watches fire too.

        Raises `WireError` if no QubesDB can hold it, `RefusedError` if this
        one does not want to.
        """
        check_entry(path, data)
        self._ask(Message(Kind.WRITE, path, data))

    def remove(self, path: str) -> None:
        """Remove a key, or with a slash at the end all below it; none is fine."""
        # Asked to remove "" or "/", Qubes' daemon leaves its list (db-core.c).
        check_entry(path.removesuffix("/"))
        self._ask(Message(Kind.RM, path))

    def watch(self, path: str) -> None:
        """Ask for events of a key, or with a slash at the end of all below it.

        Unconnected, it is remembered for `connect`.
        """
        message = Message(Kind.WATCH, path)
        if path in self._watches:
            return
        self._watches[path] = None
        if self._socket is not None:
            try:
                self._ask(message)
            except RefusedError:
                del self._watches[path]
                raise

    def unwatch(self, path: str) -> None:
        """Undo `watch`; events already under way still come."""
        if path in self._watches:
            del self._watches[path]
            if self._socket is not None:
                self._ask(Message(Kind.UNWATCH, path))

    def take_events(self) -> tuple[str, ...]:
        """Return the paths that changed, in order, without waiting.

        A path that ends with a slash was removed with all below it.
        """
        with suppress(BlockingIOError):
            while True:
                self._queue_events()
                self._receive(timeout=0)
        events = tuple(self._events)
        self._events.clear()
        return events

    def _ask(self, request: Message, kind: Kind = Kind.RESP_OK) -> Message | None:
        self._send(request)
        return self._take_one(request, kind)

    def _take_one(self, request: Message, kind: Kind) -> Message | None:
        """Return the one answer, None if the server has no such entry."""
        answer = self._wait_answer()
        if answer.path != request.path:
            raise self._broken(f"{answer.path!r} answers {request.path!r}")
        if answer.kind is Kind.RESP_ERROR_NOENT:
            return None
        return self._expect(answer, request, kind)

    def _ask_many(self, request: Message, kind: Kind) -> Iterator[Message]:
        """Yield the answers up to the one with an empty path."""
        self._send(request)
        room = _MAX_ANSWER
        while (part := self._expect(self._wait_answer(), request, kind)).path:
            room -= len(encode(part))
            if room < 0 or not part.path.startswith(request.path):
                raise self._broken(f"{part.path!r} answers {request.path!r}")
            yield part

    def _expect(self, answer: Message, request: Message, kind: Kind) -> Message:
        if answer.kind is Kind.RESP_ERROR:
            raise RefusedError(f"{request.kind.name} {request.path}")
        if answer.kind is not kind:
            raise self._broken(f"{answer.kind.name} answers {request.kind.name}")
        return answer

    def _send(self, *requests: Message) -> None:
        """Send, and start the clock for the answers."""
        self._queue_events()
        self._deadline = time.monotonic() + self._timeout
        connection = self._connection(self._timeout)
        try:
            connection.sendall(b"".join(map(encode, requests)))
        except OSError as error:
            raise self._disconnected(str(error)) from error

    def _wait_answer(self) -> Message:
        while (answer := self._next_answer()) is None:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise self._disconnected(f"no answer within {self._timeout} s")
            self._receive(timeout=left)
        return answer

    def _queue_events(self) -> None:
        """Queue what was received, before any request: no answer is due."""
        if (answer := self._next_answer()) is not None:
            raise self._broken(f"{answer.kind.name} was not asked for")

    def _next_answer(self) -> Message | None:
        """Return the next received answer, and queue the events before it."""
        try:
            while (message := self._decoder.next_message()) is not None:
                if message.kind is not Kind.RESP_WATCH:
                    return message
                self._events.append(message.path)
        except WireError as error:
            raise self._broken(str(error)) from error
        if len(self._events) > _MAX_EVENTS:
            raise self._broken("more events than any database has keys")
        return None

    def _receive(self, *, timeout: float) -> None:
        """Feed the decoder; `BlockingIOError` if the timeout is 0 and all is read."""
        connection = self._connection(timeout)
        try:
            untrusted_data = connection.recv(_CHUNK)
        except BlockingIOError:
            raise
        except OSError as error:
            raise self._disconnected(str(error)) from error
        if not untrusted_data:
            raise self._disconnected("the server closed the connection")
        self._decoder.feed(untrusted_data)

    def _connection(self, timeout: float) -> socket.socket:
        if self._socket is None:
            raise Disconnected(f"{self._path}: not connected")
        self._socket.settimeout(timeout)
        return self._socket

    def _disconnected(self, why: str) -> Disconnected:
        self.close()
        return Disconnected(f"{self._path}: {why}")

    def _broken(self, why: str) -> ProtocolError:
        self.close()
        return ProtocolError(f"{self._path}: {why}")

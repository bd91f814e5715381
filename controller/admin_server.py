# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon's end of the socket that the command talks to."""

import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector

from controller.admin import (
    MAX_REPLY,
    MAX_REQUEST,
    Exit,
    Failure,
    Lines,
    ProtocolError,
    Reply,
    Request,
    decode_request,
    encode,
)

CHUNK = 65536  # bytes
MAX_UNREAD = 2 * MAX_REPLY  # bytes that a command leaves unread
CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: SO_PEERCRED of unix(7)

OnRequest = Callable[[Request, Callable[[Reply], None]], None]


@dataclass(slots=True)
class _Peer:
    socket: socket.socket
    lines: Lines = field(default_factory=lambda: Lines(MAX_REQUEST))
    output: bytearray = field(default_factory=bytearray)
    holds: str | None = None


class AdminServer:
    """Hands every request to ``on_request``, with the way to reply.

    Only root, or who runs the daemon, is heard.  The verb ``hold`` is answered
    by nothing: it keeps a disposable alive for as long as its peer is connected.
    """

    def __init__(
        self, selector: BaseSelector, path: Path, on_request: OnRequest
    ) -> None:
        self._selector = selector
        self._path = path
        self._on_request = on_request
        self._peers: dict[socket.socket, _Peer] = {}
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.settimeout(0)
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen()
        selector.register(self._listener, EVENT_READ, self._accept)

    def held(self) -> frozenset[str]:
        """Return the disposables that somebody keeps alive."""
        return frozenset(p.holds for p in self._peers.values() if p.holds is not None)

    def close(self) -> None:
        """Hang up on everybody."""
        for peer in tuple(self._peers.values()):
            self._hang_up(peer)
        self._selector.unregister(self._listener)
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _accept(self, _mask: int) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # it hung up, or no more files can be open: it waits
            return
        raw = connection.getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size
        )
        _, uid, _ = CREDENTIALS.unpack(raw)
        if uid not in (0, os.geteuid()):
            connection.close()
            return
        connection.settimeout(0)
        peer = self._peers[connection] = _Peer(connection)
        self._selector.register(connection, EVENT_READ, partial(self._serve, peer))

    def _serve(self, peer: _Peer, mask: int) -> None:
        if mask & EVENT_WRITE:
            self._send(peer)
        if mask & EVENT_READ and peer.socket in self._peers:
            self._hear(peer)

    def _hear(self, peer: _Peer) -> None:
        try:
            data = peer.socket.recv(CHUNK)
            for line in peer.lines.feed(data):
                self._take(peer, decode_request(line))
        except ProtocolError as error:
            self._reply(peer, Failure(Exit.USAGE, str(error)))
            self._hang_up(peer)
        except BlockingIOError:
            return
        except OSError:
            self._hang_up(peer)
        else:
            if not data:
                self._hang_up(peer)

    def _take(self, peer: _Peer, request: Request) -> None:
        if request.verb == "hold":
            peer.holds = request.text("domain")
        else:
            self._on_request(request, partial(self._reply, peer))

    def _reply(self, peer: _Peer, reply: Reply) -> None:
        if peer.socket not in self._peers:
            return  # who asked has gone; what was asked for is done all the same
        peer.output += encode(reply)
        self._send(peer)

    def _send(self, peer: _Peer) -> None:
        """Send what goes without waiting, the rest when there is room."""
        try:
            while peer.output:
                del peer.output[: peer.socket.send(peer.output)]
        except BlockingIOError:
            pass
        except OSError:
            peer.output.clear()
            self._hang_up(peer)
            return
        if len(peer.output) > MAX_UNREAD:
            self._hang_up(peer)
            return
        interest = EVENT_READ | EVENT_WRITE if peer.output else EVENT_READ
        self._selector.modify(peer.socket, interest, partial(self._serve, peer))

    def _hang_up(self, peer: _Peer) -> None:
        if self._peers.pop(peer.socket, None) is not None:
            self._selector.unregister(peer.socket)
            peer.socket.close()

# SPDX-License-Identifier: GPL-2.0-or-later
"""The QubesDB of a domain, served where there is no Qubes to serve it.

One server for each domain, on a unix socket only that domain's agent can open.
dom0 writes by method call; what the domain writes is untrusted, limited to
`WRITABLE`, and handed to a callback.  The protocol is that of Qubes OS
(qubes-core-qubesdb, ``daemon/db-cmds.c``, ``daemon/db-daemon.c``).
"""

import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector

from agent.qubesdb_wire import Kind, Message, WireError, encode
from controller.qubesdb_connection import CHUNK, Connection, GoneError
from controller.qubesdb_store import Store

# What a domain may write: these keys, or all below those with a slash.
OURS = ("/ravelin/status", "/ravelin/trouble", "/ravelin/error/", "/ravelin/report/")
WRITABLE = (*OURS, "/qubes-firewall-handled/", "/dns/")
MANY = tuple(path for path in WRITABLE if path.endswith("/"))


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of dom0 one domain can use."""

    keys: int = 8192  # below `MANY`
    clients: int = 64  # at a time
    watches: int = 64  # of one client
    output: int = 4 << 20  # bytes of events one client leaves unread


DEFAULT_LIMITS = Limits()


class QubesDbServer:
    """Serves one `Store` to the clients of one unix socket.

    It joins the caller's loop, which runs ``key.data(mask)`` for each key that
    ``selector.select()`` returns.  ``path`` is made anew, replacing what an
    earlier server left; ``owner`` (uid and gid, -1 for ours) alone may connect.
    ``on_write`` gets path and value of all the domain writes, None for what it
    removed (if the path ends with a slash: all below).  A client that does not
    read its events is disconnected: it connects again and reads anew.
    """

    def __init__(  # noqa: PLR0913 (two have a default)
        self,
        selector: BaseSelector,
        path: Path,
        store: Store,
        on_write: Callable[[str, bytes | None], None],
        *,
        owner: tuple[int, int] = (-1, -1),
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._selector = selector
        self._path = path
        self._store = store
        self._on_write = on_write
        self._limits = limits
        self._clients: dict[socket.socket, Connection] = {}
        self._listener = _listen(path, owner)
        selector.register(self._listener, EVENT_READ, self._accept)

    def close(self) -> None:
        """Disconnect everybody and remove the socket."""
        for client in tuple(self._clients.values()):
            self._drop(client)
        self._selector.unregister(self._listener)
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def write(self, path: str, data: bytes) -> None:
        """Store a value on behalf of dom0 and fire the watches, or `WireError`."""
        self._store.write(path, data)
        self._fire(path)

    def remove(self, path: str) -> None:
        """Remove a key, or all below a path that ends with a slash; fires if any."""
        if self._store.remove(path):
            self._fire(path)

    def _fire(self, path: str) -> None:
        for client in tuple(self._clients.values()):
            for watch in client.watches:
                if _covers(watch, path):
                    client.say(Kind.RESP_WATCH, path)
            if len(client.output) > self._limits.output:
                self._drop(client)
            elif client.output:
                self._wait_for(client, EVENT_WRITE)

    def _accept(self, _mask: int) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # it hung up, or no more files can be open: it waits
            return
        if len(self._clients) >= self._limits.clients:
            connection.close()
            return
        connection.settimeout(0)
        client = self._clients[connection] = Connection(connection)
        converse = partial(self._converse, client)
        self._selector.register(connection, client.interest, converse)

    def _drop(self, client: Connection) -> None:
        if self._clients.pop(client.socket, None) is not None:
            self._selector.unregister(client.socket)
            client.socket.close()

    def _wait_for(self, client: Connection, interest: int) -> None:
        if client.interest != interest and client.socket in self._clients:
            client.interest = interest
            converse = partial(self._converse, client)
            self._selector.modify(client.socket, interest, converse)

    def _converse(self, client: Connection, mask: int) -> None:
        """Read once, answer, send once: no client keeps the others waiting."""
        try:
            if mask & EVENT_READ:
                client.receive()
            more = self._render(client)
            client.send()
        except GoneError:
            self._drop(client)
        else:
            # As Qubes: who has not read an answer is not asked for a request.
            busy = more or client.output
            self._wait_for(client, EVENT_WRITE if busy else EVENT_READ)

    def _render(self, client: Connection) -> bool:
        """Answer what was asked, up to a chunk; True if there may be more."""
        while len(client.output) < CHUNK:
            part = next(client.answer, None)
            if part is not None:
                client.output += part
            elif (request := client.next_request()) is not None:
                self._answer(client, request)
            else:
                return False
        return True

    def _answer(self, client: Connection, request: Message) -> None:
        path = request.path
        if request.data and request.kind is not Kind.WRITE:
            client.say(Kind.RESP_ERROR, path)
            return
        match request.kind:
            case Kind.READ:
                value = self._store.read(path)
                if value is None:
                    client.say(Kind.RESP_ERROR_NOENT, path)
                else:
                    client.say(Kind.RESP_READ, path, value)
            case Kind.MULTIREAD | Kind.LIST:
                client.answer = self._parts(request)
            case Kind.WRITE | Kind.RM:
                self._change(client, request)
            case Kind.WATCH | Kind.UNWATCH:
                client.say(self._watch(client, request), path)
            case (
                Kind.RESP_OK
                | Kind.RESP_ERROR_NOENT
                | Kind.RESP_ERROR
                | Kind.RESP_READ
                | Kind.RESP_MULTIREAD
                | Kind.RESP_LIST
                | Kind.RESP_WATCH
            ):
                client.say(Kind.RESP_ERROR, path)

    def _parts(self, request: Message) -> Iterator[bytes]:
        """Yield one message a key, as fast as they are read, and the end.

        A key changed or removed on the way fires its event all the same.
        """
        multiread = request.kind is Kind.MULTIREAD
        kind = Kind.RESP_MULTIREAD if multiread else Kind.RESP_LIST
        for key in self._store.keys(request.path):
            value = self._store.read(key)
            if value is not None:
                yield encode(Message(kind, key, value if multiread else b""))
        yield encode(Message(kind, ""))

    def _watch(self, client: Connection, request: Message) -> Kind:
        if request.kind is Kind.WATCH:
            if len(client.watches) >= self._limits.watches:
                return Kind.RESP_ERROR
            client.watches.append(request.path)
        elif request.path in client.watches:
            client.watches.remove(request.path)
        else:
            return Kind.RESP_ERROR_NOENT
        return Kind.RESP_OK

    def _change(self, client: Connection, request: Message) -> None:
        """Write or remove for the domain: answer, fire, tell, in this order."""
        path = request.path
        untrusted_value = request.data if request.kind is Kind.WRITE else None
        try:
            kind = self._untrusted_change(path, untrusted_value)
        except WireError:
            kind = Kind.RESP_ERROR
        client.say(kind, path)
        if kind is Kind.RESP_OK:
            self._fire(path)
            self._on_write(path, untrusted_value)

    def _untrusted_change(self, path: str, untrusted_value: bytes | None) -> Kind:
        if not any(_covers(writable, path) for writable in WRITABLE):
            return Kind.RESP_ERROR
        if untrusted_value is None:
            removed = self._store.remove(path)
            return Kind.RESP_OK if removed else Kind.RESP_ERROR_NOENT
        if path not in WRITABLE and self._store.read(path) is None:
            used = sum(map(self._store.count, MANY))
            if used >= self._limits.keys:
                return Kind.RESP_ERROR
        self._store.write(path, untrusted_value)
        return Kind.RESP_OK


def _listen(path: Path, owner: tuple[int, int]) -> socket.socket:
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
    with ExitStack() as undo:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        undo.callback(listener.close)
        listener.settimeout(0)
        listener.bind(str(path))
        # Nobody can connect before listen.
        path.chmod(0o600)
        os.chown(path, *owner)
        listener.listen()
        undo.pop_all()
    return listener


def _covers(path: str, key: str) -> bool:
    """Say if a path means this key; with a slash at the end it means all below."""
    return key.startswith(path) if path.endswith("/") else key == path

# SPDX-License-Identifier: GPL-2.0-or-later
"""The addresses of the host names that rules mention, kept current.

A name has two records, one for each family, that know nothing of each other:
one that fails, or is slow, holds up nothing else.  What was good stays: a
failure (timeout, SERVFAIL, nonsense) keeps the last answer for `KEEP`; only a
server that *says* so (NXDOMAIN, no such record) empties it at once.  An address
that is no longer in the answer stays for `GRACE`, because a client may just have
been given it.
"""

import math
import secrets
import select
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from agent import answer
from agent.exchange import Exchange, OpenSocket
from agent.record import Record
from rules.model import Address, Family

# All times are in seconds.
UDP_TIMEOUT = 2.0
RESEND = 0.2  # until the first time; each pause is twice the one before
TCP_TIMEOUT = 4.0

MAX_OUTSTANDING = 64  # questions at a time
MAX_REPLIES = 16  # looked at per question in one go
SLICE = 0.1  # for replies, until others have their turn

DNS_PORT = 53

Key = tuple[str, Family]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question under way; ``again`` is when to send it once more."""

    exchange: Exchange
    deadline: float
    again: float = math.inf
    pause: float = RESEND


class Names:
    """Host names -> addresses.

    Wait on `fileno` until `next_deadline`, call `handle` in both cases.
    """

    def __init__(
        self,
        servers: tuple[Address, ...] = (),
        *,
        port: int = DNS_PORT,
        clock: Callable[[], float] = time.monotonic,
        open_socket: OpenSocket = socket.socket,
    ) -> None:
        self._servers = servers
        self._port = port
        self._clock = clock
        self._open_socket = open_socket
        self._records: dict[Key, Record] = {}
        self._asked: dict[Key, _Asked] = {}
        self._epoll = select.epoll()
        self._changed = False

    def fileno(self) -> int:
        """Return the descriptor, the same for the life of this object."""
        return self._epoll.fileno()

    def want(self, names: frozenset[str]) -> None:
        """Set the names to know.  Those that are new are asked by `handle`."""
        wanted = {(name, kind) for name in names for kind in Family}
        for key in self._records.keys() - wanted:
            self._drop(key)
            del self._records[key]
        now = self._clock()
        for key in wanted - self._records.keys():
            self._records[key] = Record(due=now)

    def use(self, servers: tuple[Address, ...]) -> None:
        """Set the servers, best first; if they are others, ask them everything."""
        if servers == self._servers:
            return
        self._servers = servers
        now = self._clock()
        for key, record in self._records.items():
            self._drop(key)
            self._records[key] = replace(record, due=now, turn=0, failures=0)

    def hurry(self) -> None:
        """Ask again now what failed: there is a way to the servers again."""
        now = self._clock()
        for key, record in self._records.items():
            if record.failures:
                self._records[key] = replace(record, due=now, failures=0)

    def waiting(self) -> int:
        """Return how many questions have had neither an answer nor a failure.

        Without a server to ask there is nothing to wait for.
        """
        if not self._servers:
            return 0
        return sum(
            not record.good_at and not record.failures
            for record in self._records.values()
        )

    def answers(self) -> Mapping[str, frozenset[Address]]:
        """Return the addresses of every wanted name, none if none is known."""
        names: dict[str, frozenset[Address]] = {}
        for (name, _), record in self._records.items():
            names[name] = names.get(name, frozenset()) | record.until.keys()
        return names

    def problems(self) -> Mapping[str, str]:
        """Return why the latest question failed, for each name where it did."""
        return {
            name: record.failure
            for (name, _), record in self._records.items()
            if record.failure
        }

    def next_deadline(self) -> float:
        """Return when to call `handle` at the latest; `math.inf`: never."""
        moments = [min(a.deadline, a.again) for a in self._asked.values()]
        if self._servers and len(self._asked) < MAX_OUTSTANDING:
            moments += (self._records[key].due for key in self._idle())
        return min(moments, default=math.inf)

    def handle(self) -> bool:
        """Take what arrived, ask what is due; return whether answers changed."""
        self._changed = False
        by_fd = {asked.exchange.fileno(): key for key, asked in self._asked.items()}
        began = self._clock()
        for fd, _ in self._epoll.poll(0):
            self._receive(by_fd[fd])
            # What is left is there the next time.
            if self._clock() - began > SLICE:
                break
        now = self._clock()
        for key, asked in list(self._asked.items()):
            if asked.deadline <= now:
                self._failed(key, "no answer in time")
            elif asked.again <= now:
                self._resend(key, asked)
        for key in sorted(self._idle(), key=lambda key: self._records[key].due):
            if not self._servers or len(self._asked) >= MAX_OUTSTANDING:
                break
            if self._records[key].due <= now:
                self._ask(key)
        return self._changed

    def close(self) -> None:
        """Give all descriptors back."""
        self.want(frozenset())
        self._epoll.close()

    def _idle(self) -> list[Key]:
        return [key for key in self._records if key not in self._asked]

    def _ask(self, key: Key) -> None:
        name, kind = key
        record = self._records[key]
        server = self._servers[record.turn % len(self._servers)]
        try:
            wire = answer.question(name, kind, secrets.randbits(16))
            exchange = Exchange((server, self._port), wire, self._open_socket)
        except (OSError, ValueError) as error:
            self._failed(key, str(error))
            return
        now = self._clock()
        self._asked[key] = _Asked(exchange, now + UDP_TIMEOUT, now + RESEND)
        self._epoll.register(exchange.fileno(), exchange.awaited())

    def _resend(self, key: Key, asked: _Asked) -> None:
        """Send once more: the way to the server may be open only now."""
        try:
            asked.exchange.resend()
        except OSError as error:
            self._failed(key, str(error))
            return
        pause = 2 * asked.pause
        again = self._clock() + pause
        self._asked[key] = replace(asked, again=again, pause=pause)

    def _receive(self, key: Key) -> None:
        exchange = self._asked[key].exchange
        try:
            for _ in range(MAX_REPLIES):
                untrusted_reply = exchange.receive()
                if untrusted_reply is None:
                    break
                if self._settled(key, answer.read(untrusted_reply, exchange.question)):
                    return
            self._epoll.modify(exchange.fileno(), exchange.awaited())
        except OSError as error:
            self._failed(key, str(error))

    def _settled(self, key: Key, reply: answer.Reply) -> bool:
        match reply:
            case answer.Found():
                self._drop(key)
                self._put(key, self._records[key].found(reply, self._clock()))
            case answer.Failed(reason=reason):
                self._failed(key, reason)
            case answer.Truncated():
                exchange = self._asked[key].exchange
                exchange.ask_over_tcp()
                self._asked[key] = _Asked(exchange, self._clock() + TCP_TIMEOUT)
                self._epoll.register(exchange.fileno(), exchange.awaited())
            case answer.Unrelated():
                return False
        return True

    def _failed(self, key: Key, reason: str) -> None:
        self._drop(key)
        servers = max(len(self._servers), 1)
        self._put(key, self._records[key].failed(reason, self._clock(), servers))

    def _put(self, key: Key, record: Record) -> None:
        self._changed |= self._records[key].until.keys() != record.until.keys()
        self._records[key] = record

    def _drop(self, key: Key) -> None:
        """Forget a question; a closed socket leaves the epoll set by itself."""
        asked = self._asked.pop(key, None)
        if asked is not None:
            asked.exchange.close()

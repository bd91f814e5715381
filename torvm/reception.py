# SPDX-License-Identifier: GPL-2.0-or-later
"""The control ports of all clients: a desk for each, and none for anybody else.

Another identity is other ports of tor for that client (`torvm.listeners`).  It is
told that it has it when the kernel sends its flows there and the old ones are cut.
"""

import logging
import math
import select
import socket
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

from rules.facts import Client, Redirect
from torvm.desk import AT, Desk, listen
from torvm.doors import Doors
from torvm.filter import Known

log = logging.getLogger(__name__)

NOWHERE = Redirect(0, 0)


def with_control(
    redirects: Mapping[int, Redirect], indexes: Iterable[int]
) -> Mapping[int, Redirect]:
    """Return where flows of clients end, their control ports among them."""
    found = ((index, redirects.get(index, NOWHERE)) for index in indexes)
    return {index: replace(port, control=AT) for index, port in found}


class Reception:
    """The desks; readable when a client has said something."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        listen: Callable[[Client], socket.socket] = listen,
    ) -> None:
        self._refused = 0
        self._clock = clock
        self._listen = listen
        self._desks: dict[int, Desk] = {}
        self._asleep: set[int] = set()
        self._without: frozenset[Client] = frozenset()
        self._ready = select.epoll()

    def fileno(self) -> int:
        """Return the descriptor to wait on, the same for ever."""
        return self._ready.fileno()

    def next_deadline(self) -> float:
        """Return when to call `handle` at the latest."""
        moments = (desk.next_deadline() for desk in self._desks.values())
        return min(moments, default=math.inf)

    def handle(self, known: Known, speaking: Collection[Client]) -> bool:
        """Answer; return whether somebody may have another identity now.

        ``known`` is what all are told, ``speaking`` who may speak SOCKS.
        """
        now = self._clock()
        ready = {descriptor for descriptor, _ in self._ready.poll(0)}
        for index, desk in self._desks.items():
            if desk.fileno() not in ready and desk.next_deadline() > now:
                continue
            before = desk.refused
            desk.handle(known, now, socks=desk.client in speaking)
            self._count(desk, before)
            self._listen_to(index, desk, now)
        return any(desk.due(now) for desk in self._desks.values())

    def serve(self, clients: Iterable[Client]) -> None:
        """Answer these clients from now on, and nobody else."""
        wanted = {client.index: client for client in clients}
        for index, desk in tuple(self._desks.items()):
            if wanted.get(index) != desk.client:
                del self._desks[index]
                self._asleep.discard(index)
                desk.close()
        self._without &= frozenset(wanted.values())
        for index in wanted.keys() - self._desks.keys():
            self._open(wanted[index])

    @property
    def served(self) -> frozenset[int]:
        """The indexes of the vifs of those who are answered.

        Nobody else may be sent there: somebody of this domain may have had the port
        before us, and would answer in our place.
        """
        return frozenset(self._desks)

    def move(self, doors: Doors, redirects: Mapping[int, Redirect]) -> Doors:
        """Give another identity to who may have it, and tell who has it.

        ``redirects`` are in force.
        """
        now = self._clock()
        for index, desk in self._desks.items():
            if desk.due(now):
                desk.move(now)
                doors = doors.move(desk.client)
            port = redirects.get(index, NOWHERE).tcp
            if desk.moving and port in {0, doors.ports.held[desk.client]}:
                desk.moved()
        return doors

    def report(self) -> Mapping[str, str]:
        """Return how much clients asked for in vain."""
        return {"control-refused": str(self._refused)} if self._refused else {}

    def _open(self, client: Client) -> None:
        try:
            listening = self._listen(client)
        except OSError as error:
            if client not in self._without:
                log.warning("%s: no control port: %s", client.vif, error.strerror)
            self._without |= {client}
            return
        desk = Desk(client, listening, self._clock())
        self._desks[client.index] = desk
        self._ready.register(desk, select.EPOLLIN)

    def _listen_to(self, index: int, desk: Desk, now: float) -> None:
        """Hear nothing of a client that asked too much, until it may ask again."""
        asleep = desk.asleep > now
        if asleep and index not in self._asleep:
            self._ready.unregister(desk)
            self._asleep.add(index)
        elif not asleep and index in self._asleep:
            self._ready.register(desk, select.EPOLLIN)
            self._asleep.remove(index)

    def _count(self, desk: Desk, before: int) -> None:
        """Log the first, and then whenever they are ten times as many."""
        self._refused += desk.refused - before
        if desk.refused and (not before or len(str(desk.refused)) > len(str(before))):
            log.info(
                "%s: %d commands at its control port refused",
                desk.client.vif,
                desk.refused,
            )

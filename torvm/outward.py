# SPDX-License-Identifier: GPL-2.0-or-later
"""How tor gets out when not by itself: by bridges, their programs, and a proxy."""

import select
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

from agent.berth import BERTHS, hosts_of
from rules.facts import Carried, Facts
from rules.model import Address
from torvm.carried import Outside, Users, addresses, carried
from torvm.fronts import Fronts, write_hosts
from torvm.given import Given
from torvm.transports import Transports


class Outward:
    """The programs of the transports, and the names that they are told."""

    def __init__(
        self,
        programs: tuple[Transports, ...],
        fronts: Fronts,
        directory: Path = BERTHS,
    ) -> None:
        self._programs = programs
        self._directory = directory
        self._given = Given()
        self._fronts = fronts
        self._ready = select.epoll()
        self._ready.register(self._fronts, select.EPOLLIN)
        for program in programs:
            self._ready.register(program, select.EPOLLIN)

    def fileno(self) -> int:
        """Return the descriptor to wait on, the same for ever."""
        return self._ready.fileno()

    def next_deadline(self) -> float:
        """Return when to call `handle` at the latest."""
        moments = (each.next_deadline() for each in self._programs)
        return min((self._fronts.next_deadline(), *moments))

    def begin(self, given: Given) -> None:
        """Take what is given; no program is started before."""
        self._given = given
        self._fronts.want(given.names)
        self._tell()
        for program in self._programs:
            program.begin(given.proxy)

    def handle(self, *, ready: bool) -> bool:
        """Take what happened; return whether the facts may be others.

        ``ready``: tor has circuits, so nothing has to be asked.
        """
        heard = [program.handle() for program in self._programs]
        if told := self._fronts.handle():
            self._tell()
        return any(heard) | told | self._fronts.due(ready=ready)

    def look(self, facts: Facts) -> None:
        """Take the facts that no driver has added to."""
        self._fronts.look(facts)

    def ask(self) -> None:
        """Ask for names, now that the kernel lets the questions out."""
        self._fronts.ask()

    def carried(
        self, tor: int, relays: Iterable[tuple[Address, int]] | None
    ) -> Iterator[Carried]:
        """Yield what may leave; ``tor`` is the user that tor runs as."""
        users = Users(tor, {each.program: each.uid for each in self._programs})
        yield from carried(users, self._outside, relays)
        yield from self._fronts.carried()

    @property
    def speaking(self) -> Mapping[str, int]:
        """Where which transport is spoken, on 127.0.0.1."""
        return dict(chain(*(each.ports.items() for each in self._programs)))

    @property
    def by_itself(self) -> bool:
        """Whether tor connects to relays that it chooses."""
        return not self._given.bridges and self._given.proxy is None

    @property
    def trouble(self) -> str:
        """What is wrong with a program, or nothing."""
        return next(filter(None, (each.trouble for each in self._programs)), "")

    def waits_for(self) -> str:
        """Return what must be there before tor is let out, or nothing."""
        if not all(each.complete for each in self._programs):
            return "the program of the bridges' transport"
        if self._given.names and not any(self._reachable()):
            why = self._fronts.problem
            return f"a name of the bridges{why and f': {why}'}"
        return ""

    @property
    def _outside(self) -> Outside:
        return Outside(self._given.bridges, self._given.proxy, self._fronts.known)

    def _reachable(self) -> Iterator[bool]:
        known = self._fronts.known
        for bridge in self._given.bridges:
            yield all(addresses(place, known) for place in bridge.way.places)

    def _tell(self) -> None:
        for each in self._programs:
            path = hosts_of(each.program.value, self._directory)
            write_hosts(path, self._fronts.known)

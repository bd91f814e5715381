# SPDX-License-Identifier: GPL-2.0-or-later
"""The one server that may be reached now, chosen, asked for and given up."""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from rules.facts import Carried, Facts, Uid
from rules.model import Address, family
from vpn.endpoints import UDP, Endpoint, Target, why_refused
from vpn.lookup import Lookup
from vpn.openvpn_attempts import Attempts
from vpn.openvpn_trouble import NOTHING, Trouble
from vpn.surroundings import Surroundings, surroundings


class Choice:
    """``target`` is pinned from its choice to the end of the attempt.

    ``trouble`` is why there is none, as far as looking for one tells.
    """

    def __init__(
        self,
        attempts: Attempts,
        lookup: Lookup,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lookup = lookup
        self._clock = clock
        self._around = Surroundings()
        self.attempts = attempts
        self.target: Target | None = None
        self._wake = math.inf  # when to choose, until that was done
        self.trouble = NOTHING

    def fileno(self) -> int:
        """Return what is readable when a resolver answered."""
        return self._lookup.fileno()

    def next_deadline(self) -> float:
        """Return when the next attempt is due; `math.inf`: nothing to wait for."""
        return min(self._wake, self._lookup.next_deadline())

    def handle(self) -> bool:
        """Take what a resolver said; return whether that settles a question."""
        found = self._lookup.handle()
        if found is None:
            return False
        if found.addresses:
            answered = self.attempts.rotation.answered(found.name, found.addresses)
            self.attempts = replace(self.attempts, rotation=answered)
        else:
            self._failed(found.problem)
        return True

    def carried(self) -> frozenset[Carried]:
        """Return what the uplinks must carry for the name of a server."""
        return self._lookup.carried(self._around)

    def pinned(self, uid: int) -> frozenset[Carried]:
        """Return what the uplinks must carry of the daemon, whose user is ``uid``."""
        if self.target is None:
            return frozenset()
        to = (self.target.address, self.target.port)
        return frozenset({Carried(Uid(uid), self.target.proto, to)})

    def look(self, facts: Facts) -> None:
        """Take the surroundings as they are now."""
        self._around = surroundings(facts)

    @property
    def lacking(self) -> str:
        """Why there is no server to try, in words for people, or nothing."""
        return self._around.lacking or self.trouble.text

    def is_due(self) -> bool:
        """Whether the next attempt may begin."""
        return self.target is None and self.attempts.due <= self._clock()

    def choose(self) -> None:
        """Pin a server, if an attempt is due and there is a way to it."""
        if self._wake <= self._clock():
            self._wake = math.inf
        if not self.is_due() or not self._around.ready or self._lookup.asking:
            return
        rotation = self.attempts.rotation
        target = rotation.target()
        if (name := rotation.question()) is not None:
            self._lookup.prepare(name, rotation.patience())
        elif target is not None:
            written = not isinstance(rotation.endpoint.host, str)
            if why := self._why_not(target, written=written):
                self._failed(f"{target.address} {why}")
            else:
                self.target, self.trouble = target, NOTHING

    def ask(self) -> None:
        """Ask for a name, now that the uplinks carry the question."""
        self._lookup.ask(self._around)

    def clash(self, addresses: Iterable[Address]) -> str | None:
        """Say which address that a server gave is taken here, if one is."""
        own, clients = self._around.own, self._around.clients
        for address in sorted(addresses, key=str):
            if self.target is not None and address == self.target.address:
                return f"the server gave {address}, where it is itself"
            if why := why_refused(address, own, clients, written=True):
                return f"the server gave {address}, which {why}"
        return None

    def over(self, count: Callable[[Attempts, float], Attempts]) -> None:
        """Count an attempt that is over; what was up is lost, whatever it met."""
        lost = self.attempts.up_since < math.inf
        how = Attempts.lost if lost else count
        self.attempts, self.target = how(self.attempts, self._clock()), None
        self._wake = self.attempts.due

    def up(self) -> None:
        """Note that the tunnel came up."""
        self.attempts = self.attempts.succeeded(self._clock())

    def rest(self) -> None:
        """Choose nothing and ask nothing, as long as there is no uplink."""
        self.target = None
        self.attempts = replace(self.attempts, up_since=math.inf)
        self._lookup.forget()

    def end(self) -> None:
        """Choose nothing any more."""
        self.rest()
        self.attempts = replace(self.attempts, due=math.inf)
        self._wake = math.inf

    def _failed(self, why: str) -> None:
        self.trouble = Trouble(why, 1)
        self.attempts = self.attempts.failed(self._clock())
        self._wake = self.attempts.due

    def _why_not(self, target: Target, *, written: bool) -> str | None:
        around = self._around
        if family(target.address) not in around.families:
            return "is of another IP version than the uplink"
        own, clients = around.own, around.clients
        return why_refused(target.address, own, clients, written=written)


def said(endpoint: Endpoint | Target) -> str:
    """Return how people call a server."""
    host = endpoint.host if isinstance(endpoint, Endpoint) else endpoint.address
    kind = "udp" if endpoint.proto == UDP else "tcp"
    return f"{host} port {endpoint.port}/{kind}"

# SPDX-License-Identifier: GPL-2.0-or-later
"""The addresses of a server's name, asked over the uplink by the agent itself.

Clients take no part: their questions go through the tunnel or nowhere.  Only
while a name is asked may the agent talk to the uplink's resolvers at all.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from agent.names import DNS_PORT, Names
from rules.facts import Carried, Uid
from rules.model import Address, Family, family
from vpn.endpoints import TCP, UDP, why_refused
from vpn.surroundings import Surroundings


@dataclass(frozen=True, slots=True)
class Found:
    """Addresses of ``name`` that a server can have; in ``problem`` why none."""

    name: str
    addresses: frozenset[Address]
    problem: str = ""


@dataclass(slots=True)
class Lookup:
    """One question at a time.  Wait on `fileno` until `next_deadline`."""

    names: Names = field(default_factory=Names)
    clock: Callable[[], float] = time.monotonic
    _name: str = ""
    _until: float = 0.0
    _around: Surroundings = field(default_factory=Surroundings)

    @property
    def asking(self) -> str:
        """The name that is asked, or nothing."""
        return self._name

    def fileno(self) -> int:
        """Return the descriptor, the same for the life of this object."""
        return self.names.fileno()

    def next_deadline(self) -> float:
        """Return when to call `handle` at the latest."""
        if not self._name:
            return self.names.next_deadline()
        return min(self.names.next_deadline(), self._until)

    def carried(self, around: Surroundings) -> frozenset[Carried]:
        """Return what the uplinks must carry for the question."""
        if not self._name:
            return frozenset()
        return frozenset(
            Carried(Uid(os.getuid()), proto, (resolver, DNS_PORT))
            for resolver in around.resolvers
            for proto in (UDP, TCP)
        )

    def prepare(self, name: str, patience: float) -> None:
        """Mean to ask ``name``, for ``patience`` seconds; nothing is sent yet."""
        self._name, self._until = name, self.clock() + patience

    def ask(self, around: Surroundings) -> None:
        """Ask, now that the uplinks carry it."""
        if self._name:
            self._around = around
            self.names.use(tuple(sorted(around.resolvers, key=str)))
            self.names.want(frozenset({self._name}))

    def handle(self) -> Found | None:
        """Take what came; return what was found, once, and be done with it."""
        self.names.handle()
        if not self._name:
            return None
        addresses = self.names.answers().get(self._name, frozenset())
        complete = self.names.waiting() == 0 and bool(self.names.answers())
        if not complete and self.clock() < self._until:
            return None
        found = self._judge(addresses)
        self.forget()
        return found

    def forget(self) -> None:
        """Ask no more."""
        self._name = ""
        self.names.want(frozenset())

    def _judge(self, addresses: frozenset[Address]) -> Found:
        refused = {a: self._why_not(a) for a in addresses}
        good = frozenset(a for a, reason in refused.items() if not reason)
        if good:
            return Found(self._name, good)
        reasons = [f"{address} {reason}" for address, reason in refused.items()]
        if not reasons:
            reasons = list(self.names.problems().values())
        if not self._around.resolvers:
            reasons = ["there is no resolver to ask"]
        problem = min(reasons) if reasons else "no answer in time"
        return Found(self._name, good, f"{self._name}: {problem}")

    def _why_not(self, address: Address) -> str | None:
        if family(address) not in self._around.families:
            missing = "IPv4" if family(address) is Family.IPV4 else "IPv6"
            return f"cannot be reached, the uplink has no {missing}"
        return why_refused(address, self._around.own, self._around.clients)

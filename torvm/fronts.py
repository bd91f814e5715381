# SPDX-License-Identifier: GPL-2.0-or-later
"""The addresses of the names in bridge lines, asked over the uplink by the agent.

The programs of the transports are told them as a file of hosts(5) and have no
resolver, so what they may reach is known by address before they are let out.
Only while a name is asked may the agent talk to the uplink's resolvers at all.
"""

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from agent.names import DNS_PORT, Names
from rules.facts import Carried, Facts, Uid
from rules.model import Address
from rules.outside import is_public
from torvm.carried import Known, families
from torvm.places import TCP, UDP

PATIENCE = 10.0  # seconds until what has no answer is left for later
PAUSE = 30.0  # seconds until names are asked again, as long as tor has no circuits


class Fronts:
    """All names at once.  Wait on `fileno` until `next_deadline`."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, names: Names | None = None
    ) -> None:
        self.known: Known = {}
        self.problem = ""
        """Why a name has no address, without the name, which is a secret."""
        self._wanted: frozenset[str] = frozenset()
        self._clock = clock
        self._names = names or Names(clock=clock)
        self._resolvers: frozenset[Address] = frozenset()
        self._ours: frozenset[Address] = frozenset()
        self._linked = False
        self._again = self._until = math.inf

    @property
    def asking(self) -> bool:
        """Whether the uplinks must carry questions."""
        return self._until < math.inf

    def fileno(self) -> int:
        """Return the descriptor, the same for the life of this object."""
        return self._names.fileno()

    def next_deadline(self) -> float:
        """Return when to call `handle` at the latest."""
        if self.asking:
            return min(self._until, self._names.next_deadline())
        return self._again

    def want(self, names: frozenset[str]) -> None:
        """Set the names to know."""
        self._wanted = names
        self._again = self._clock() if names and self._linked else math.inf

    def look(self, facts: Facts) -> None:
        """Take where the resolvers are, from facts that no driver added to."""
        ours = {a for uplink in facts.uplinks for a in uplink.own}
        self._ours = facts.here | facts.connected | ours
        linked = bool(families(facts) and facts.resolvers)
        news = linked and (not self._linked or facts.resolvers != self._resolvers)
        self._linked, self._resolvers = linked, facts.resolvers
        if news and self._wanted:
            self._again = self._clock()

    def due(self, *, ready: bool) -> bool:
        """Begin to ask if it is time; return whether that changes what is carried.

        Who has circuits (``ready``) asks nothing: each question is seen outside.
        """
        if self.asking or self._clock() < self._again:
            return False
        if not self._linked:
            self._again = math.inf  # until there is a link
            return False
        if ready:
            self._again = self._clock() + PAUSE
            return False
        self._until = self._clock() + PATIENCE
        self._again = math.inf
        return True

    def ask(self) -> None:
        """Send the questions, now that the uplinks carry them."""
        if self.asking:
            self._names.use(tuple(sorted(self._resolvers, key=str)))
            self._names.want(self._wanted)

    def handle(self) -> bool:
        """Take what came; return whether that is all, and changes what is carried."""
        self._names.handle()
        found = self._names.answers()
        if not self.asking:
            return False
        complete = self._names.waiting() == 0 and bool(found)
        if not complete and self._clock() < self._until:
            return False
        good = {name: self._good(addresses) for name, addresses in found.items()}
        # What was good stays if nobody says otherwise now.
        self.known = {**self.known, **{n: found for n, found in good.items() if found}}
        self.problem = self._why() if self.known.keys() < self._wanted else ""
        self._until, self._again = math.inf, self._clock() + PAUSE
        if not self._wanted:
            self._again = math.inf
        self._names.want(frozenset())
        return True

    def carried(self) -> Iterator[Carried]:
        """Yield what the uplinks must carry for the questions."""
        for resolver in self._resolvers if self.asking else ():
            for proto in (UDP, TCP):
                yield Carried(Uid(os.getuid()), proto, (resolver, DNS_PORT))

    def _good(self, addresses: Iterable[Address]) -> frozenset[Address]:
        """Leave out what no server outside can have (TunnelCrack, ServerIP)."""
        return frozenset(a for a in addresses if is_public(a) and a not in self._ours)

    def _why(self) -> str:
        reasons = sorted(self._names.problems().values())
        if not reasons and any(self._names.answers().values()):
            return "the answer is no address of a server"
        return reasons[0] if reasons else "no answer in time"


def write_hosts(path: Path, known: Known) -> None:
    """Write the names as hosts(5), in place: somebody may have mounted the file."""
    lines = ["127.0.0.1 localhost\n", "::1 localhost\n"]
    lines += sorted(f"{a} {name}\n" for name, found in known.items() for a in found)
    path.touch(mode=0o644)
    path.write_text("".join(lines), encoding="ascii")

# SPDX-License-Identifier: GPL-2.0-or-later
"""Hold back who has so many connections that others would find no room.

A client may have as many as are left for everybody else, of the whole table.  So
one alone gets half of it, two a third each, and however many do it, there is always
room.  Who has more opens none until it has fewer; what it has goes on.

Where another gateway carries our clients' flows too, it sees all of them as those of
one client, us.  It must not hold us back for one of ours, so the last gateway of a
chain gives each client three times what is left, and one with a single client, which
could only take from itself, looks at nothing.

The count of all is one small file.  Only where it says that somebody may have too
much is the table read (0.4 s of the processor for 131,072 flows), and not often.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from agent.ports import Conntrack
from rules.facts import Facts

log = logging.getLogger(__name__)

BEFORE_OTHERS, LAST = 1, 3
"""How many times what is left a client may have, by where we are in a chain."""
LET_GO = 3 / 4
"""Of that, to be let go: or who is held would be let go and held all the time."""
ALONE = 1  # client
IDLE = 4
"""For so many times the processor time that a look took there is none."""


@dataclass(slots=True)
class Crowd:
    """Remembers who is held: the indexes of their vifs."""

    conntrack: Conntrack
    clock: Callable[[], float] = time.monotonic
    spent: Callable[[], float] = time.process_time
    held: frozenset[int] = frozenset()
    trouble: str = ""
    _again: float = field(default=0.0)

    def look(self, facts: Facts) -> bool:
        """Find out who is to be held; return whether that is somebody else."""
        if self.clock() < self._again:
            return False
        spent = self.spent()
        before, self.held = self.held, self._found(facts)
        self._again = self.clock() + IDLE * (self.spent() - spent)
        if before == self.held:
            return False
        clients = [c for c in facts.clients if c.index in self.held]
        who = ", ".join(sorted(str(client.ip) for client in clients))
        self.trouble = f"{who}: {SAID}" if who else ""
        log.warning("%s", self.trouble or "nobody has too many connections any more")
        return True

    def _found(self, facts: Facts) -> frozenset[int]:
        present, most = self.conntrack.full()
        share = BEFORE_OTHERS if facts.configured else LAST
        easy = LET_GO if self.held else 1
        # A client has at most all that there are.
        few = present <= easy * share * (most - present)
        if few or len(facts.clients) <= ALONE:
            return frozenset()
        counts = self.conntrack.count(*(a for c in facts.clients for a in c.addresses))
        own = {c.index: sum(counts[a] for a in c.addresses) for c in facts.clients}
        return crowding(own, share * (most - present), self.held)


SAID = "it has more connections than are left for others, and may open none for now"


def crowding(
    counts: Mapping[int, int], room: int, held: frozenset[int]
) -> frozenset[int]:
    """Return who has more than ``room``; less is enough for those who are held."""
    return frozenset(
        index
        for index, count in counts.items()
        if count > room * (LET_GO if index in held else 1)
    )

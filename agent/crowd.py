# SPDX-License-Identifier: GPL-2.0-or-later
"""Hold back who has so many connections that others would find no room.

A client may have as many as are left for everybody else, of the whole table.  So
one alone gets half of it, two a third each, and however many do it, there is always
room.  Who has more opens none until it has fewer; what it has goes on.

Where another gateway carries our clients' flows too, it sees all of them as those of
one client, us.  It must not hold us back for one of ours, so the last gateway of a
chain gives each client three times what is left, and one with a single client, which
could only take from itself, looks at nothing.

The same goes for the ports that flows to one address have: all clients have one
address there, and without a port left nobody opens a flow to it.  To the resolver that
all of them ask, one client could do that with a quarter of the largest table.

The count of all is one small file.  Only where it says that somebody may have too
much is the table read (0.4 s of the processor for 131,072 flows), and not often.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from agent.ports import Conntrack
from rules.facts import Facts
from rules.pace import BURST, SECONDS

log = logging.getLogger(__name__)

BEFORE_OTHERS, LAST = 1, 3
"""How many times what is left a client may have, by where we are in a chain."""
LET_GO = 3 / 4
"""Of that, to be let go: or who is held would be let go and held all the time."""
ALONE = 1  # client
PORTS = 65536 - 1024
"""So many flows of one protocol to one address and port have different ports of ours
(nf_nat_l4proto_unique_tuple(), net/netfilter/nf_nat_core.c).  All to an address are
counted as if they were of one kind."""
UNSEEN = 4  # seconds from one look to the next, and for the look
LITTLE = 1 / 4
"""Of the ports to one address, which anybody may have, however few are left."""
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
        few = present <= easy * share * (min(most, ports(most)) - present)
        if few or len(facts.clients) <= ALONE:
            return frozenset()
        counts = self.conntrack.count(*(a for c in facts.clients for a in c.addresses))
        own = {c.index: Counter[bytes]() for c in facts.clients}
        for client in facts.clients:
            for address in client.addresses:
                own[client.index].update(counts[address])
        totals = {index: flows.total() for index, flows in own.items()}
        found = crowding(totals, share * (most - present), self.held)
        return found | crowding_at_one(own, share, ports(most), self.held)


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


def ports(table: int) -> int:
    """Return `PORTS` without those that a client may take before it is held.

    ``table`` is how many flows the connection table holds (`rules.pace`).
    """
    return PORTS - table // BURST - UNSEEN * (table // SECONDS)


def crowding_at_one(
    own: Mapping[int, Counter[bytes]], share: int, most: int, held: frozenset[int]
) -> frozenset[int]:
    """Return who has more flows to an address than there are ports left for others.

    ``own`` counts the flows of each client by where they lead; ``most`` are the ports.
    """
    all_there: Counter[bytes] = Counter()
    for flows in own.values():
        all_there.update(flows)
    found: frozenset[int] = frozenset()
    for to, number in all_there.items():
        room = max(share * (most - number), int(LITTLE * most))
        if number > LET_GO * room:  # else nobody has so many
            there = {index: flows[to] for index, flows in own.items()}
            found |= crowding(there, room, held)
    return found

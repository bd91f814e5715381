# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known of one host name in one family, and when to ask again."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import islice

from agent import answer
from rules.model import Address

# All times are in seconds.
MIN_TTL = 5.0
MAX_TTL = 3600.0
MAX_EMPTY_TTL = 60.0
GRACE = 60.0
KEEP = 86400.0
FIRST_BACKOFF = 1.0
MAX_BACKOFF = 60.0
MAX_ADDRESSES = 1024  # of one record


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of one name in one family.

    ``until``: address -> when it may be forgotten; ``due``: when to ask;
    ``turn``: how many servers were tried; ``failure``: why the last try failed.
    """

    until: Mapping[Address, float] = field(default_factory=dict)
    due: float = 0.0
    turn: int = 0
    failures: int = 0
    failure: str = ""
    good_at: float = 0.0

    def found(self, result: answer.Found, now: float) -> "Record":
        """Return the record after an answer."""
        most = MAX_TTL if result.addresses else MAX_EMPTY_TTL
        due = now + min(max(result.ttl, MIN_TTL), most)
        until = dict.fromkeys(result.addresses, due + GRACE)
        if until:
            recent = self.until.items()
            until |= {a: end for a, end in recent if a not in until and end > now}
        until = dict(islice(until.items(), MAX_ADDRESSES))
        return Record(until, due, turn=self.turn, good_at=now)

    def failed(self, reason: str, now: float, servers: int) -> "Record":
        """Return the record after a failure: next server, then patience."""
        failures = self.failures + 1
        rounds, untried = divmod(failures, servers)
        pause = min(FIRST_BACKOFF * 2 ** min(rounds - 1, 9), MAX_BACKOFF)
        return replace(
            self,
            until=self.until if now < self.good_at + KEEP else {},
            due=now if untried else now + pause,
            turn=self.turn + 1,
            failures=failures,
            failure=reason,
        )

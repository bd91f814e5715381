# SPDX-License-Identifier: GPL-2.0-or-later
"""A personality as data: its states, and what each allows."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from rules.facts import Facts
from rules.flows import Allowed

S = TypeVar("S", bound=Enum)
E = TypeVar("E", bound=Enum)


@dataclass(frozen=True, slots=True)
class Machine(Generic[S, E]):
    """States, transitions and the flows of each state.

    An event that the table does not name for a state changes nothing.
    """

    name: str
    initial: S
    transitions: Mapping[tuple[S, E], S]
    allowed: Mapping[S, Allowed]

    def step(self, state: S, event: E) -> S:
        """Return the state that ``event`` leads to from ``state``."""
        return self.transitions.get((state, event), state)


class Way(Enum):
    """The states of a plain gateway: is there a way out."""

    BLOCKED = "blocked"  # no uplink has both an address and a next hop
    OPEN = "open"  # one has


class Uplinks(Enum):
    """What the facts say about the uplinks of a plain gateway."""

    READY = "uplink ready"
    LOST = "uplink lost"


PlainGateway = Machine[Way, Uplinks]


def plain_gateway(name: str, allowed: Mapping[Way, Allowed]) -> PlainGateway:
    """Return the machine of a gateway without a tunnel of its own."""
    transitions = {
        (Way.BLOCKED, Uplinks.READY): Way.OPEN,
        (Way.OPEN, Uplinks.LOST): Way.BLOCKED,
    }
    return Machine(name, Way.BLOCKED, transitions, allowed)


def observe(facts: Facts) -> Uplinks:
    """Return what the present uplinks mean for a plain gateway."""
    ready = any(uplink.own and uplink.gateways for uplink in facts.uplinks)
    return Uplinks.READY if ready else Uplinks.LOST

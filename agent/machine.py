# SPDX-License-Identifier: GPL-2.0-or-later
"""A personality as data: its states, and what each allows."""

from collections.abc import Callable, Mapping
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


@dataclass(slots=True)
class Course(Generic[S, E]):
    """The port `agent.personality.Course`: a place in a table.

    ``observe`` says what the facts mean.
    """

    machine: Machine[S, E]
    observe: Callable[[Facts], E]
    _at: S | None = None

    @property
    def name(self) -> str:
        """The name of the table."""
        return self.machine.name

    @property
    def state(self) -> str:
        """The word for where we are."""
        return str(self._here.value)

    @property
    def allowed(self) -> Allowed:
        """What is allowed there."""
        return self.machine.allowed[self._here]

    def advance(self, facts: Facts) -> bool:
        """Go on as the facts say; return whether that is another state."""
        before = self._here
        self._at = self.machine.step(before, self.observe(facts))
        return self._at is not before

    @property
    def _here(self) -> S:
        return self.machine.initial if self._at is None else self._at


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


def plain(machine: PlainGateway) -> Course[Way, Uplinks]:
    """Return a course through the table of a plain gateway."""
    return Course(machine, observe)


def observe(facts: Facts) -> Uplinks:
    """Return what the present uplinks mean for a plain gateway."""
    ready = any(uplink.own and uplink.gateways for uplink in facts.uplinks)
    return Uplinks.READY if ready else Uplinks.LOST

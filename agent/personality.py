# SPDX-License-Identifier: GPL-2.0-or-later
"""What makes one agent differ from another, besides its table."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from rules.facts import Facts, Gateway
from rules.flows import Allowed
from rules.model import Address


@dataclass(frozen=True, slots=True)
class Dns:
    """The resolvers of a domain.

    ``virtual`` maps each virtual resolver of the clients to a real one;
    ``own`` are those the agent itself asks, in order.
    """

    virtual: Mapping[Address, Address]
    own: tuple[Address, ...] = ()


class Resolvers(Protocol):
    """Where the real resolvers are learned."""

    def dns(self, from_dom0: tuple[Address, ...]) -> Dns:
        """Return the resolvers now; ``from_dom0`` are those QubesDB names."""

    def watched(self) -> Mapping[int, Callable[[], None]]:
        """Return a handler for each file descriptor to wait on."""


class Course(Protocol):
    """A table (`agent.machine.Machine`), and where in it we are."""

    @property
    def name(self) -> str:
        """The name of the table."""

    @property
    def state(self) -> str:
        """The word for where we are."""

    @property
    def allowed(self) -> Allowed:
        """What is allowed there."""

    def advance(self, facts: Facts) -> bool:
        """Go on as the facts say; return whether that is another state."""


class Driver(Protocol):
    """The daemon of a personality.  No method waits for anything."""

    def fileno(self) -> int:
        """Return what is readable when the daemon said something, or -1."""

    def handle(self) -> bool:
        """Take what came, or is due; return whether the facts may be others."""

    def next_deadline(self) -> float:
        """Return when to call `handle` at the latest, by `time.monotonic`."""

    def told(self, words: Mapping[str, str]) -> None:
        """Take what dom0 wrote below ``/ravelin/personality/``, by path."""

    def facts(self, facts: Facts) -> Facts:
        """Return the facts with what the daemon adds to them.

        ``resolvers`` are those of the uplink when it is called; what it returns
        are those that names in rules are asked of.
        """

    def follow(self, state: str, facts: Facts) -> None:
        """Drive the daemon, now that the kernel enforces this state."""

    def trouble(self) -> str:
        """Return what keeps it from working, in a line for people, or nothing."""

    def report(self) -> Mapping[str, str]:
        """Return what ``ravelin status`` shows of it; words, not secrets."""


class Undriven:
    """The `Driver` of a personality without a daemon."""

    def fileno(self) -> int:
        """Return -1."""
        return -1

    def handle(self) -> bool:
        """Do nothing."""
        return False

    def next_deadline(self) -> float:
        """Return never."""
        return math.inf

    def told(self, words: Mapping[str, str]) -> None:
        """Listen to nothing."""

    def facts(self, facts: Facts) -> Facts:
        """Return the facts."""
        return facts

    def follow(self, state: str, facts: Facts) -> None:
        """Do nothing."""

    def trouble(self) -> str:
        """Return nothing."""
        return ""

    def report(self) -> Mapping[str, str]:
        """Return nothing."""
        return {}


@dataclass(frozen=True, slots=True)
class Personality:
    """A table, where its resolvers come from, its daemon, and facts of its uplink.

    ``internal`` are prefixes that no client may reach through this domain.
    ``pin_gateway``: the next hop is the vif of another domain, whose MAC
    address is known (``setup-ip``), so it is never asked for by ARP.
    """

    course: Course
    resolvers: Resolvers
    internal: frozenset[str] = frozenset()
    pin_gateway: bool = False
    kind: Gateway = Gateway.ROUTER
    driver: Driver = field(default_factory=Undriven)

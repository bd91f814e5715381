# SPDX-License-Identifier: GPL-2.0-or-later
"""What makes one agent differ from another, besides its table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from agent.machine import PlainGateway
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


@dataclass(frozen=True, slots=True)
class Personality:
    """A table, where its resolvers come from, and two facts about its uplink.

    ``internal`` are prefixes that no client may reach through this domain.
    ``pin_gateway``: the next hop is the vif of another domain, whose MAC
    address is known (``setup-ip``), so it is never asked for by ARP.
    """

    machine: PlainGateway
    resolvers: Resolvers
    internal: frozenset[str] = frozenset()
    pin_gateway: bool = False

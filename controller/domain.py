# SPDX-License-Identifier: GPL-2.0-or-later
"""One domain, as values."""

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from controller import addresses
from controller.personality import Personality
from rules.model import Action, Policy, Rule

ACCEPT_ALL = Policy((Rule(Action.ACCEPT),))


class Label(Enum):
    """How far a domain is trusted, as the colour of its windows (Qubes)."""

    RED = "red"
    ORANGE = "orange"
    YELLOW = "yellow"
    GREEN = "green"
    GRAY = "gray"
    BLUE = "blue"
    PURPLE = "purple"
    BLACK = "black"


@dataclass(frozen=True, slots=True)
class HostUplink:
    """The connection of this machine, shared."""


@dataclass(frozen=True, slots=True)
class LabUplink:
    """The embedded internet, which needs no network at all."""


@dataclass(frozen=True, slots=True)
class Nic:
    """An interface of this machine, moved into the NetVM."""

    name: str


Uplink = HostUplink | LabUplink | Nic


@dataclass(frozen=True, slots=True)
class Domain:
    """One domain.

    ``qid`` is 1..9999; of a disposable it is the dispid.  ``ipv6`` is what the
    domain asks for, `Domains.has_ipv6` what it gets.  ``files``, ``switches`` and
    ``texts`` are what its personality is given, by key.
    """

    name: str
    qid: int
    label: Label = Label.RED
    personality: Personality | None = None
    netvm: str | None = None
    uplink: Uplink | None = None
    policy: Policy = ACCEPT_ALL
    ipv6: bool = True
    disposable: bool = False
    files: tuple[tuple[str, Path], ...] = ()
    switches: frozenset[str] = frozenset()
    texts: tuple[tuple[str, str], ...] = ()

    @property
    def given(self) -> tuple[object, ...]:
        """All that its personality is given."""
        return self.files, self.switches, self.texts

    @property
    def provides_network(self) -> bool:
        """Whether other domains may have this one as netvm."""
        return self.personality is not None

    @property
    def ip4(self) -> IPv4Address:
        """Its address as a client, and as the gateway of its clients."""
        return addresses.ip4(self.qid, disposable=self.disposable)

    @property
    def ip6(self) -> IPv6Address:
        """The same in IPv6."""
        return addresses.ip6(self.qid, disposable=self.disposable)

# SPDX-License-Identifier: GPL-2.0-or-later
"""The pieces a ruleset is made of, each replaced as a whole.

A ruleset is a mapping of names to these values; what the kernel is sent is the
difference of two such mappings (see `rules.transaction`).  The words are those
of nft(8); rules and elements are its text.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from rules.model import Address

IP = "ip qubes"
IP6 = "ip6 qubes"
GUARD = "inet ravelin-guard"
ARP_GUARD = "arp ravelin-guard"

EACH_VIF = "type iface_index; size 65536; flags dynamic,timeout;"
"""The declaration, but for its timeout, of a set that counts for each vif by itself:
one that floods us takes nothing from the others."""
SELDOM = "{ iif limit rate 5/second burst 20 packets }"
"""What such a set counts where a client has little to ask."""


def chain_name(address: Address) -> str:
    """Return the name of the chain that holds the rules of ``address``."""
    return "q_" + str(address).replace(".", "-").replace(":", "-")


@dataclass(frozen=True, slots=True)
class Key:
    """Where an object lives: its table (``family name``) and its own name."""

    table: str
    name: str


@dataclass(frozen=True, slots=True)
class Chain:
    """A regular chain: the text of each rule, in order."""

    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Set:
    """A set: its declaration (``type …;`` and flags) and its elements."""

    declaration: str
    elements: frozenset[str]


@dataclass(frozen=True, slots=True)
class Map:
    """A map or verdict map: its declaration, and element key to value."""

    declaration: str
    elements: Mapping[str, str]


Object = Chain | Set | Map
Ruleset = Mapping[Key, Object]

# SPDX-License-Identifier: GPL-2.0-or-later
"""What a state of a personality may allow, by name.

A flow's name is at once the comment of its nft rule, the word in the log, the
row of ``docs/reference/states-and-traffic.md`` and what ``explain`` prints.
"""

from dataclasses import dataclass
from enum import Enum


class Zone(Enum):
    """The parties of a flow, seen from the domain that carries it."""

    CLIENTS = "clients"
    UPLINK = "uplink"
    SELF = "this domain"


@dataclass(frozen=True, slots=True)
class Flow:
    """Traffic that someone opens; its replies are part of it."""

    name: str
    source: Zone
    target: Zone


BY_RULES = Flow("clients by their rules", Zone.CLIENTS, Zone.UPLINK)
CLIENT_DNS = Flow("names for clients", Zone.CLIENTS, Zone.UPLINK)
OWN_TRAFFIC = Flow("own traffic", Zone.SELF, Zone.UPLINK)
OWN_NAMES = Flow("names in rules", Zone.SELF, Zone.UPLINK)
PING = Flow("ping of this domain", Zone.CLIENTS, Zone.SELF)

Allowed = frozenset[Flow]

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
    TUNNEL = "tunnel"


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
IN_TUNNEL = Flow(BY_RULES.name, Zone.CLIENTS, Zone.TUNNEL)
DNS_IN_TUNNEL = Flow(CLIENT_DNS.name, Zone.CLIENTS, Zone.TUNNEL)
NAMES_IN_TUNNEL = Flow(OWN_NAMES.name, Zone.SELF, Zone.TUNNEL)
INTO_DAEMON = Flow("clients into the daemon by their rules", Zone.CLIENTS, Zone.SELF)
CONTROL_PORT = Flow("control port, if it is switched on", Zone.CLIENTS, Zone.SELF)
CARRIED = Flow("the tunnel itself", Zone.SELF, Zone.UPLINK)
PING = Flow("ping of this domain", Zone.CLIENTS, Zone.SELF)
ADDRESSES = Flow("addresses of clients", Zone.CLIENTS, Zone.SELF)
"""In every state, as are the neighbours of a link: who asks is told its own."""

Allowed = frozenset[Flow]

FORWARDING = frozenset({BY_RULES, IN_TUNNEL})
"""Packets of clients leave, as their rules say."""
SERVING = FORWARDING | {INTO_DAEMON}
"""Flows of clients live."""
NAMING = frozenset({CLIENT_DNS, DNS_IN_TUNNEL})
"""The virtual resolvers lead to real ones."""

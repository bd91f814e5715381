# SPDX-License-Identifier: GPL-2.0-or-later
"""The FirewallVM: the rules of each client, and nothing of its own."""

from agent.machine import Way, plain_gateway
from rules.flows import BY_RULES, CLIENT_DNS, OWN_NAMES, PING

FIREWALLVM = plain_gateway(
    "firewallvm",
    {
        Way.BLOCKED: frozenset({PING}),
        Way.OPEN: frozenset({PING, BY_RULES, CLIENT_DNS, OWN_NAMES}),
    },
)

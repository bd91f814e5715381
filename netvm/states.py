# SPDX-License-Identifier: GPL-2.0-or-later
"""The NetVM: the one domain that has the network card."""

from agent.machine import Way, plain_gateway
from rules.flows import BY_RULES, CLIENT_DNS, OWN_TRAFFIC, PING

NETVM = plain_gateway(
    "netvm",
    {
        Way.BLOCKED: frozenset({PING}),
        Way.OPEN: frozenset({PING, BY_RULES, CLIENT_DNS, OWN_TRAFFIC}),
    },
)

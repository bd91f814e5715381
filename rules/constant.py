# SPDX-License-Identifier: GPL-2.0-or-later
"""What of the rules never changes, as one transaction for nft."""

from rules.carriers import CARRIER_TEXT
from rules.facts import Gateway
from rules.guard import GUARD_TEXT
from rules.pace import pace
from rules.redirects import REDIRECT_TEXT
from rules.skeleton import SKELETON_TEXT


def constant(kind: Gateway, table: int) -> str:
    """Return the guard and the skeleton; loaded again, they stay what they are.

    ``table`` is how many flows the connection table holds (`rules.pace`).

    What a daemon needs is part of them where there is one: a chain that a gateway
    does not need costs each of its packets.
    """
    plain = GUARD_TEXT + pace(table) + SKELETON_TEXT
    match kind:
        case Gateway.ROUTER:
            return plain
        case Gateway.TUNNEL:
            return plain + CARRIER_TEXT
        case Gateway.PROXY:
            return plain + CARRIER_TEXT + REDIRECT_TEXT

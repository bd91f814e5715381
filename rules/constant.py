# SPDX-License-Identifier: GPL-2.0-or-later
"""What of the rules never changes, as one transaction for nft."""

from rules.carriers import CARRIER_TEXT
from rules.guard import GUARD_TEXT
from rules.pace import pace
from rules.redirects import REDIRECT_TEXT
from rules.skeleton import SKELETON_TEXT


def constant(*, carrier: bool, table: int) -> str:
    """Return the guard and the skeleton; loaded again, they stay what they are.

    ``table`` is how many flows the connection table holds (`rules.pace`).

    Of a ``carrier`` what its daemon needs is part of them (`rules.carriers`).
    """
    plain = GUARD_TEXT + pace(table) + SKELETON_TEXT
    return plain + CARRIER_TEXT + REDIRECT_TEXT if carrier else plain

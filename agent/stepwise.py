# SPDX-License-Identifier: GPL-2.0-or-later
"""Load the difference of two rulesets the quick way where there is one."""

import logging

from agent.ports import Firewall, FirewallError
from rules.objects import Ruleset
from rules.transaction import difference, steps

log = logging.getLogger(__name__)


class HalfDoneError(RuntimeError):
    """What is in force is what is wanted, but something is left that nobody knows."""


def load(firewall: Firewall, old: Ruleset, new: Ruleset) -> bool:
    """Make ``new`` out of ``old``; return whether there was anything to do.

    `FirewallError`: the kernel refuses, and has ``old``.  `HalfDoneError`: begin
    anew, for a chain that stayed would keep its rules when its name comes back.
    """
    several = steps(old, new)
    if several is None:
        if script := difference(old, new):
            firewall.load(script)
        return bool(script)
    if several.added:
        firewall.load(several.added)
    try:
        firewall.put(several.edits)
    except FirewallError:
        _tidy(firewall, several.undo)
        raise
    _tidy(firewall, several.removed)
    return True


def _tidy(firewall: Firewall, script: str) -> None:
    try:
        if script:
            firewall.load(script)
    except FirewallError as error:
        raise HalfDoneError(str(error)) from error

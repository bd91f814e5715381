# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether the constant rules declare what a ruleset fills."""

from rules.constant import constant
from rules.facts import Gateway
from rules.objects import Ruleset
from rules.pace import USUAL
from rules.transaction import difference


def undeclared(kind: Gateway, objects: Ruleset) -> set[str]:
    """Return the declarations that are not among the constant rules of a gateway."""
    added = difference({}, objects).splitlines()
    declared = {line for line in added if not line.startswith(("add rule", "add elem"))}
    assert declared
    return declared - set(constant(kind, USUAL).splitlines())

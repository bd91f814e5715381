# SPDX-License-Identifier: GPL-2.0-or-later
"""What of an earlier snapshot still holds for a later one of the same domain."""

from proof.bytecode import Bytecode, Chain, Place, Rule
from proof.leads import leads_to
from proof.world import Place as Domain


def unchanged(old: Bytecode, new: Bytecode) -> frozenset[Place]:
    """Return the chains that do the same in both, with all that they lead to."""
    sets = {
        place for place, item in new.sets.items() if old.sets.get(place) != item
    } | (old.sets.keys() - new.sets.keys())
    changed = {
        place
        for place, chain in new.chains.items()
        if place not in old.chains or not _alike(old.chains[place], chain)
    }
    users: dict[Place, set[Place]] = {}
    for place, chain in new.chains.items():
        for used in leads_to(new, chain):
            users.setdefault(used, set()).add(place)
    waiting = [*changed, *sets]
    while waiting:
        fresh = users.get(waiting.pop(), set()) - changed
        changed |= fresh
        waiting += fresh
    return frozenset(new.chains.keys() - changed)


def _alike(one: Chain, other: Chain) -> bool:
    if one.hook != other.hook or len(one.rules) != len(other.rules):
        return False
    return all(map(_same, one.rules, other.rules))


def _same(one: Rule, other: Rule) -> bool:
    if one.handle != other.handle or len(one.expressions) != len(other.expressions):
        return False
    return all(
        a.name == b.name and a.values == b.values
        for a, b in zip(one.expressions, other.expressions, strict=True)
    )


def steady(old: Domain, new: Domain) -> bool:
    """Return whether two places differ in their nf_tables only."""
    return (
        old.clients == new.clients
        and old.uplinks == new.uplinks
        and old.carriers == new.carriers
        and old.net.routing == new.net.routing
        and old.net.settings == new.net.settings
        and old.net.gaps == new.net.gaps
    )

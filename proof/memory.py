# SPDX-License-Identifier: GPL-2.0-or-later
"""What of an earlier snapshot still holds for a later one of the same domain."""

from collections.abc import Iterator

from proof.bytecode import Bytecode, Chain, Expression, Place, Rule, Verdict, data
from proof.netlink import SnapshotError, text
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
        for used in _used(new, chain):
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


def _used(code: Bytecode, chain: Chain) -> Iterator[Place]:
    """Yield the chains and sets that a chain leads to."""
    for rule in chain.rules:
        for expression in rule.expressions:
            name = _name(expression)
            if name is None:
                continue
            place = chain.place._replace(name=name)
            yield place
            if expression.name == "lookup" and place in code.sets:
                for element in code.sets[place].elements:
                    match element.value:
                        case Verdict(_, str(target)):
                            yield chain.place._replace(name=target)
                        case _:
                            pass


def _name(expression: Expression) -> str | None:
    try:
        if expression.name in {"lookup", "dynset"} and 1 in expression.values:
            return text(expression.values[1])
        if expression.name == "immediate" and 2 in expression.values:  # noqa: PLR2004 - NFTA_IMMEDIATE_DATA
            match data(expression.values[2], "a verdict"):
                case Verdict(_, chain):
                    return chain
                case bytes():
                    return None
    except SnapshotError:
        pass  # the machine makes a doubt of it, which is not remembered
    return None


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

# SPDX-License-Identifier: GPL-2.0-or-later
"""Where chains of nf_tables lead."""

from collections.abc import Iterator

from proof.bytecode import Bytecode, Chain, Expression, Place, Verdict, data
from proof.netlink import SnapshotError, text


def with_all_it_leads_to(code: Bytecode, chain: Chain) -> Iterator[Chain]:
    """Yield a chain and all that a packet in it may come to, each once."""
    known, waiting = {chain.place}, [chain]
    while waiting:
        found = waiting.pop()
        yield found
        fresh = code.chains.keys() & set(leads_to(code, found)) - known
        known |= fresh
        waiting += map(code.chains.__getitem__, fresh)


def leads_to(code: Bytecode, chain: Chain) -> Iterator[Place]:
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

# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether what was read of nf_tables fits together."""

from proof.bytecode import Bytecode, Place, Rule, Verdict, data
from proof.netlink import SnapshotError, need, text


def check(found: Bytecode) -> None:
    """Raise `SnapshotError` for what points to something that is not there."""
    for place in (*found.chains, *found.sets):
        if Place(place.family, place.table, place.table) not in found.tables:
            raise SnapshotError(f"{place}: its table does not exist")
    for item in found.sets.values():
        for element in item.elements:
            match element.value:
                case Verdict(_, str(chain)):
                    if item.place._replace(name=chain) not in found.chains:
                        raise SnapshotError(f"{item.place}: no chain {chain}")
                case _:
                    pass
    for chain_ in found.chains.values():
        for rule in chain_.rules:
            _resolved(found, chain_.place, rule)


def _resolved(found: Bytecode, place: Place, rule: Rule) -> None:
    for expression in rule.expressions:
        if expression.name == "lookup":
            name = text(need(expression.values, 1, f"lookup in {place}"))
            if place._replace(name=name) not in found.sets:
                raise SnapshotError(f"{place} handle {rule.handle}: no set {name}")
        elif expression.name == "immediate":
            value = data(need(expression.values, 2, f"verdict in {place}"), str(place))
            if (
                isinstance(value, Verdict)
                and value.chain is not None
                and place._replace(name=value.chain) not in found.chains
            ):
                raise SnapshotError(
                    f"{place} handle {rule.handle}: no chain {value.chain}"
                )

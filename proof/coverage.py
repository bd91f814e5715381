# SPDX-License-Identifier: GPL-2.0-or-later
"""What of nf_tables could move or change packets and is not modelled: named.

`proof.beside` names what is not of nf_tables.
"""

from collections.abc import Iterator
from itertools import combinations

from proof.bytecode import (
    DORMANT,
    EVALUATED,
    OWNED,
    Bytecode,
    Chain,
    Expression,
    Family,
    Rule,
)
from proof.leads import with_all_it_leads_to
from proof.netlink import number, text

_IP_HOOKS = frozenset(range(5))  # NF_INET_PRE_ROUTING to NF_INET_POST_ROUTING
_MODELLED: dict[int, frozenset[int]] = {
    Family.IP: _IP_HOOKS,
    Family.IP6: _IP_HOOKS,
    Family.INET: _IP_HOOKS,
    Family.ARP: frozenset({0}),  # NF_ARP_IN
    Family.NETDEV: frozenset({1}),  # NF_NETDEV_EGRESS
}
# They send copies, or send otherwise than routing says; xtables may do anything.
_SENDING = frozenset(
    {"dup", "fwd", "flow_offload", "queue", "tproxy", "synproxy", "target"}
)
# What rules may write that nothing here depends on: mark, priority, trace, secmark;
# mark, secmark, labels and events of conntrack (NFT_META_…, NFT_CT_…).
_HARMLESS = {"meta": {2, 3, 12, 14}, "ct": {3, 4, 13, 18}}
_OBJECTS = frozenset({1, 2, 4, 5, 7, 8})  # that count, limit, or set a time
_DEFRAGMENTED = -400  # NF_IP_PRI_CONNTRACK_DEFRAG
_PREROUTING, _INPUT, _OUTPUT = 0, 1, 3  # NF_INET_…
_TRACKING = frozenset({"ct", "nat", "masq", "redir", "connlimit"})
# The attribute with the register of what is written, 0: it always writes.
_WRITING = {"meta": 3, "ct": 4, "payload": 5, "notrack": 0, "nat": 0, "masq": 0}
_WRITING |= {"redir": 0}


def gaps_of_bytecode(found: Bytecode) -> Iterator[str]:
    """Yield what of nf_tables is not modelled."""
    for place, flags in found.tables.items():
        if flags & DORMANT:
            yield f"table {_table(place.family)} {place.name} is dormant"
        if flags & OWNED:
            yield f"table {_table(place.family)} {place.name} belongs to a process"
    for chain in found.chains.values():
        yield from _gaps_of_hook(found, chain)
        for rule in chain.rules:
            for gap in _gaps_of_rule(found, chain, rule):
                yield f"{chain.place} handle {rule.handle} {gap}"
    for family in (Family.IP, Family.IP6):
        own = [c for c in found.chains.values() if c.place.family in (family, 1)]
        used = {
            e.name for chain in own for rule in chain.rules for e in rule.expressions
        }
        if used and not used & _TRACKING:
            yield f"no rule makes conntrack run for {_table(family)}"
    for place in found.flowtables:
        yield f"flowtable {place} bypasses forward"


def _gaps_of_hook(found: Bytecode, chain: Chain) -> Iterator[str]:
    family, hook = chain.place.family, chain.hook
    if hook is None:
        return
    if hook.number not in _MODELLED.get(family, frozenset()):
        yield f"base chain {chain.place} at hook {hook.number} is not modelled"
    if family not in {Family.INET, Family.IP, Family.IP6}:
        return
    early = hook.priority <= _DEFRAGMENTED and chain.rules
    if early and hook.number == _OUTPUT:
        yield f"base chain {chain.place} sees fragments"
    if early and hook.number == _PREROUTING and _writes_in(found, chain):
        yield f"base chain {chain.place} writes while it sees fragments"
    if (
        hook.kind == "nat"
        and hook.number == _INPUT
        and (chain.rules or not hook.policy)
    ):
        yield f"base chain {chain.place} translates at hook input"


def _writes_in(found: Bytecode, base: Chain) -> bool:
    """Return whether a fragment may leave it with a mark: that is not its whole's."""
    chains = with_all_it_leads_to(found, base)
    return any(_writes(e) for c in chains for rule in c.rules for e in rule.expressions)


def _gaps_of_rule(found: Bytecode, chain: Chain, rule: Rule) -> Iterator[str]:
    for expression in rule.expressions:
        name, values = expression.name, expression.values
        if name in _SENDING:
            yield f"takes packets elsewhere ({name})"
        if name == "payload" and _writes(expression):
            # Within a domain that is a doubt; the next one would not know.
            yield "writes into packets"
        if name in _HARMLESS and _writes(expression):
            key = number(values.get(2), name)
            if key not in _HARMLESS[name]:
                yield f"sets {name} {key}"
        if name == "objref" and number(values.get(1), name) not in _OBJECTS:
            yield f"uses an object of type {number(values.get(1), name)}"
        if name == "dynset":
            place = chain.place._replace(name=text(values.get(1, b"")))
            if not (place in found.sets and found.sets[place].flags & EVALUATED):
                yield f"fills {place.name}, which is no dynamic set"


def gaps_of_order(found: Bytecode) -> Iterator[str]:
    """Yield base chains of which nobody knows which comes first, if it matters."""
    writing = {
        chain.place[:2]
        for chain in found.chains.values()
        if any(_writes(e) for rule in chain.rules for e in rule.expressions)
    }
    base = [c for c in found.chains.values() if c.hook is not None and c.rules]
    for one, other in combinations(base, 2):
        if (
            one.hook is not None
            and other.hook is not None
            and one.hook.number == other.hook.number
            and one.hook.priority == other.hook.priority
            and (one.hook.kind == "nat") is (other.hook.kind == "nat")
            and _meet(one, other)
            and {one.place[:2], other.place[:2]} & writing
        ):
            yield f"{one.place} and {other.place} have one priority, and change packets"


def _meet(one: Chain, other: Chain) -> bool:
    """Return whether a packet can pass both."""
    families = {one.place.family, other.place.family}
    if Family.NETDEV in families and one.hook is not None and other.hook is not None:
        return bool({*one.hook.devices} & {*other.hook.devices})
    return len(families) == 1 or Family.INET in families


def _writes(expression: Expression) -> bool:
    written = _WRITING.get(expression.name)
    return written is not None and (not written or written in expression.values)


def _table(family: int) -> str:
    known = {item.value: item.name.lower() for item in Family}
    return known.get(family, str(family))

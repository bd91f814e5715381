# SPDX-License-Identifier: GPL-2.0-or-later
"""A client's list for one IP version, with every name and role resolved.

What is left is numbers, ready to be compiled; the first match over it is what
`rules.decide.decide` says.
"""

from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import takewhile

from rules.decide import DNS_PORT, Names, alive, icmp_types, protocols
from rules.model import (
    Action,
    Address,
    AddressRange,
    Anywhere,
    ClientPolicy,
    Family,
    Name,
    Network,
    Policy,
    Ports,
    Refused,
    Rule,
)
from rules.model import family as family_of
from rules.remember import Remembered

Networks = tuple[AddressRange, ...]


@dataclass(frozen=True, slots=True)
class Match:
    """One rule; a field that is None is not looked at, an empty one never occurs.

    ``networks`` are of one family, disjoint and in ascending order;
    ``protocols`` and ``icmp_types`` are IANA numbers; ``source`` is the index of
    the rule in its list.
    """

    action: Action
    networks: Networks | None
    protocols: frozenset[int] | None
    ports: Ports | None
    icmp_types: frozenset[int] | None
    source: int


@dataclass(frozen=True, slots=True)
class Ground:
    """The first match decides, ``default`` when there is none."""

    matches: tuple[Match, ...]
    default: Action


def ground(
    policy: ClientPolicy,
    family: Family,
    names: Names,
    resolvers: frozenset[Address],
    now: int,
) -> Ground:
    """Return the list for one family; the arguments are those of `decide`.

    Rules that can match nothing are left out.
    """
    match policy:
        case Refused():
            return Ground((), Action.DROP)
        case Policy(rules, default):
            matches = (
                _fixed(rule, index, family.value)
                if rule.special is None and not isinstance(rule.destination, Name)
                else _match(rule, index, family, names, resolvers)
                for index, rule in enumerate(rules)
                if rule.expire is None or alive(rule, now)
            )
            return Ground(tuple(found for found in matches if found), default)


def _match(
    rule: Rule,
    index: int,
    family: Family,
    names: Names,
    resolvers: frozenset[Address],
) -> Match | None:
    networks = _networks(rule, family, names, resolvers)
    types = icmp_types(rule, family)
    if networks == () or types == frozenset() or not _has_port(rule):
        return None
    return Match(
        action=rule.action,
        networks=networks,
        protocols=protocols(rule, family),
        ports=Ports(DNS_PORT, DNS_PORT) if rule.special else rule.ports,
        icmp_types=types,
        source=index,
    )


def losses(old: Ground, new: Ground) -> tuple[Match, ...] | None:
    """Return matches, one of which finds each packet that only ``old`` accepts.

    None: it may be any.  Where both are the same at the start and at the end, it is
    decided in between: by a rule that accepts and is gone, or one that drops and is
    new.
    """
    if old.default is Action.ACCEPT and new.default is Action.DROP:
        return None
    same = sum(1 for _ in takewhile(bool, map(_alike, old.matches, new.matches)))
    before, after = list(old.matches[same:]), list(new.matches[same:])
    while before and after and _alike(before[-1], after[-1]):
        del before[-1], after[-1]
    return (
        *(match for match in before if match.action is Action.ACCEPT),
        *(match for match in after if match.action is Action.DROP),
    )


def _alike(one: Match, other: Match) -> bool:
    return one is other or one == replace(other, source=one.source)


@Remembered
def _fixed(rule: Rule, index: int, bits: int) -> Match | None:
    """Return the match of a rule that is about neither names nor resolvers."""
    return _match(rule, index, Family(bits), {}, frozenset())


def _has_port(rule: Rule) -> bool:
    if rule.special is None or rule.ports is None:
        return True
    return rule.ports.first <= DNS_PORT <= rule.ports.last


def _networks(
    rule: Rule, family: Family, names: Names, resolvers: frozenset[Address]
) -> Networks | None:
    """Return where the rule applies in this family; None is anywhere in it."""
    match rule.destination:
        case Anywhere():
            return _hosts(resolvers, family) if rule.special else None
        case Name(host):
            addresses = names.get(host, frozenset())
            return _hosts(addresses & resolvers if rule.special else addresses, family)
        case Network(prefix):
            if rule.special:
                return _hosts(frozenset(a for a in resolvers if a in prefix), family)
            if family_of(prefix) is not family:
                return ()
            return (prefix,) if prefix.prefixlen else None


def _hosts(addresses: frozenset[Address], family: Family) -> Networks:
    wanted = (address for address in addresses if family_of(address) is family)
    return tuple(_host(address) for address in sorted(wanted, key=int))


def _host(address: Address) -> AddressRange:
    match address:
        case IPv4Address():
            return IPv4Network(address)
        case IPv6Address():
            return IPv6Network(address)

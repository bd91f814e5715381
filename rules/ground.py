# SPDX-License-Identifier: GPL-2.0-or-later
"""A client's list for one IP version, with every name and role resolved.

What is left is numbers, ready to be compiled; the first match over it is what
`rules.decide.decide` says.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

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
                _match(index, rule, family, _networks(rule, family, names, resolvers))
                for index, rule in enumerate(rules)
                if alive(rule, now) and _has_port(rule)
            )
            return Ground(tuple(found for found in matches if found), default)


def _match(
    index: int, rule: Rule, family: Family, networks: Networks | None
) -> Match | None:
    types = icmp_types(rule, family)
    if networks == () or types == frozenset():
        return None
    return Match(
        action=rule.action,
        networks=networks,
        protocols=protocols(rule, family),
        ports=Ports(DNS_PORT, DNS_PORT) if rule.special else rule.ports,
        icmp_types=types,
        source=index,
    )


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

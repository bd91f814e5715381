# SPDX-License-Identifier: GPL-2.0-or-later
"""The difference of two policies, in packets."""

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address

from controller.boxes import Hosts, lines
from controller.domains import Domain, Domains
from controller.nowhere import RESOLVERS
from controller.plan import Change, Sign
from controller.reach import Reach
from proof.diagram import Node, OverrunError
from rules.decide import Names
from rules.model import Address, Family, Name, family

MOST = 8  # lines for one domain and sign
# Where no packet can go to (RFC 1122 3.2.1.3, RFC 4291 2.5.5.2), so they stand
# for names that have no address yet.
_STANDS4, _STANDS6 = int(IPv4Address("0.0.0.0")), int(IPv6Address("::ffff:0:0"))  # noqa: S104 (no socket)


def effect(old: Domains, new: Domains, names: Names, now: int) -> Iterator[Change]:
    """Yield what each domain may reach from now on, and what no longer.

    ``names`` and ``now`` are those of `controller.explain.explain`.  A domain that
    is gone reaches nothing, and nothing is said of it.
    """
    changed = [d for d in new if _way(old, d.name) != _way(new, d.name)]
    stands = _with_stand_ins(names, _named([*old, *new]))
    hosts: dict[Address, str] = dict.fromkeys(RESOLVERS, "dns")
    hosts |= {a: host for host, known in stands.items() for a in known}
    reaches = [Reach(version, stands, now) for version in Family]
    for domain in changed:
        try:
            found = [*_of_domain(reaches, old, new, domain.name, hosts)]
        except OverrunError as error:
            text = f"may reach other things than before ({error})"
            found = [Change(Sign.CHANGE, domain.name, text)]
        yield from found


def _way(domains: Domains, name: str) -> tuple[object, ...]:
    """Return all that decides what a domain reaches."""
    if name not in domains.by_name or not domains.path(name):
        return ()
    lists = (d.policy for d in (domains.by_name[name], *domains.path(name)[:-1]))
    return domains.has_ipv6(name), *lists


def _named(domains: Iterable[Domain]) -> Iterator[str]:
    for domain in domains:
        for rule in domain.policy.rules:
            if isinstance(rule.destination, Name):
                yield rule.destination.host


def _with_stand_ins(
    names: Names, hosts: Iterable[str]
) -> Mapping[str, frozenset[Address]]:
    found: dict[str, frozenset[Address]] = {}
    for number, host in enumerate(sorted({*hosts}), start=1):
        known = names.get(host, frozenset())
        has = {family(address) for address in known}
        stand4, stand6 = IPv4Address(_STANDS4 + number), IPv6Address(_STANDS6 + number)
        found[host] = known | {a for a in (stand4, stand6) if family(a) not in has}
    return found


def _of_domain(
    reaches: Iterable[Reach], old: Domains, new: Domains, name: str, hosts: Hosts
) -> Iterator[Change]:
    for sign, before, after, text in (
        (Sign.ADD, old, new, "may now also reach"),
        (Sign.REMOVE, new, old, "may no longer reach"),
    ):
        parts = [
            part for r in reaches for part in _gained(r, before, after, name, hosts)
        ]
        different = [*dict.fromkeys(parts)]
        for part in different[:MOST]:
            yield Change(sign, name, f"{text} {part}")
        if len(different) > MOST:
            yield Change(sign, name, f"{text} {len(different) - MOST} parts more")


def _gained(
    reach: Reach, before: Domains, after: Domains, name: str, hosts: Hosts
) -> Iterator[str]:
    """Yield what the lists of ``after`` accept and those of ``before`` do not.

    What is added must get out, but addresses that nobody ever reaches are not
    taken from prefixes: people know what they wrote.
    """
    space = reach.space

    def listed(domains: Domains) -> Node:
        connected = reach.connected(domains, name)
        return reach.by_lists(domains, name) if connected else space.false

    gained = space.minus(reach.out(after, name), reach.out(before, name))
    wide = space.minus(listed(after), listed(before))
    for text, part in lines(space, wide, reach.version, hosts):
        if space.both(part, gained) is not space.false:
            yield text

# SPDX-License-Identifier: GPL-2.0-or-later
"""Domains and their links: what dom0 wants to be true.

A value of type `Domains` is consistent by construction: every netvm exists and
provides network, there is no loop, and uplinks are where they can be used.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from controller.domain import (
    ACCEPT_ALL,
    Domain,
    HostUplink,
    Label,
    LabUplink,
    Nic,
    Uplink,
)
from controller.nearest import expected
from controller.personality import Personality

# The values of one domain are part of this interface.
__all__ = [
    "ACCEPT_ALL",
    "Domain",
    "Domains",
    "DomainsError",
    "HostUplink",
    "LabUplink",
    "Label",
    "Nic",
    "Personality",
    "Problem",
    "UnknownDomainError",
    "Uplink",
]

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,30}\Z")
RESERVED = frozenset({"default", "dom0", "none"})


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a domain, and at which of its keys."""

    domain: str
    key: str | None
    text: str


class DomainsError(ValueError):
    """Domains that do not fit together."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(f"{p.domain}: {p.text}" for p in problems))
        self.problems = problems


class UnknownDomainError(LookupError):
    """A name that no domain has."""


@dataclass(frozen=True, slots=True)
class Domains:
    """Every domain by name; `DomainsError` when they do not fit together."""

    by_name: Mapping[str, Domain]

    def __post_init__(self) -> None:
        """Refuse links that cannot work, naming all of them."""
        problems = tuple(
            problem
            for domain in self.by_name.values()
            for problem in _problems(domain, self.by_name)
        )
        if problems:
            raise DomainsError(problems)

    def __iter__(self) -> Iterator[Domain]:
        return iter(self.by_name.values())

    def named(self, name: str) -> Domain:
        """Return the domain of that name, or raise `UnknownDomainError`."""
        if name not in self.by_name:
            raise UnknownDomainError(
                f"{name}: no such domain, {expected(name, self.by_name)}"
            )
        return self.by_name[name]

    def path(self, name: str) -> tuple[Domain, ...]:
        """Return the domains its packets cross, its own netvm first."""
        return tuple(self.by_name[hop] for hop in _path(name, self.by_name))

    def clients(self, name: str) -> tuple[Domain, ...]:
        """Return the domains that have ``name`` as netvm, by number."""
        found = (domain for domain in self if domain.netvm == name)
        return tuple(sorted(found, key=lambda domain: (domain.disposable, domain.qid)))

    def has_ipv6(self, name: str) -> bool:
        """Whether the domain and every domain on its path want IPv6."""
        return all(d.ipv6 for d in (self.by_name[name], *self.path(name)))

    def with_disposable(self, template: str, dispid: int) -> tuple["Domains", Domain]:
        """Return the domains with ``disp<dispid>``, a copy of ``template``."""
        copy = replace(
            self.named(template), name=f"disp{dispid}", qid=dispid, disposable=True
        )
        if copy.provides_network:
            text = "provides network, expected an AppVM to make a disposable from"
            raise DomainsError((Problem(template, None, text),))
        if copy.name in self.by_name:
            raise DomainsError((Problem(copy.name, None, "the name is taken"),))
        return Domains({**self.by_name, copy.name: copy}), copy


def _path(name: str, by_name: Mapping[str, Domain]) -> list[str]:
    """Return the netvms from ``name`` on, up to the first that comes again."""
    found: list[str] = []
    link = by_name[name].netvm
    while link is not None and link in by_name and link not in found:
        found.append(link)
        link = by_name[link].netvm
    return found


def _problems(domain: Domain, by_name: Mapping[str, Domain]) -> Iterator[Problem]:
    name = domain.name
    if NAME.match(name) is None:
        text = (
            f'"{name}" is no name, expected a letter, then up to 30 of a-z A-Z 0-9 _ -'
        )
        yield Problem(name, None, text)
    if name in RESERVED:
        yield Problem(name, None, f'"{name}" is reserved, expected another name')
    yield from _netvm_problems(domain, by_name)
    yield from _uplink_problems(domain, by_name)
    if domain.personality == Personality.NETVM:
        yield from _of_a_netvm(domain)
    elif domain.personality is not None:
        yield from _of_a_proxyvm(domain, domain.personality, by_name)


def _of_a_proxyvm(
    domain: Domain, personality: Personality, by_name: Mapping[str, Domain]
) -> Iterator[Problem]:
    if domain.netvm is None:
        text = f"a {personality.value} stands before a NetVM, expected netvm = NAME"
        yield Problem(domain.name, None, text)
    if not personality.by_udp:
        return
    for hop in map(by_name.get, _path(domain.name, by_name)):
        kind = hop and hop.personality
        if hop and kind and kind.only_tcp:
            text = (
                f"netvm: {personality.value} needs UDP, and {hop.name} "
                f"({kind.value}) carries TCP alone, expected openvpn over TCP "
                f"here, or {hop.name} behind {domain.name}"
            )
            yield Problem(domain.name, "netvm", text)


def _uplink_problems(
    domain: Domain, by_name: Mapping[str, Domain]
) -> Iterator[Problem]:
    uplink = domain.uplink
    if uplink is not None and domain.personality != Personality.NETVM:
        text = 'only a NetVM has one, expected personality = "netvm" or no uplink'
        yield Problem(domain.name, "uplink", f"uplink: {text}")
    if isinstance(uplink, Nic):
        owner = next(d.name for d in by_name.values() if d.uplink == uplink)
        if owner != domain.name:
            text = f"{uplink.name} is that of {owner}, expected another interface"
            yield Problem(domain.name, "uplink", f"uplink: {text}")


def _of_a_netvm(domain: Domain) -> Iterator[Problem]:
    if domain.netvm is not None:
        text = 'netvm: a NetVM has none, expected uplink = "host", "lab" or a NIC'
        yield Problem(domain.name, "netvm", text)
    elif domain.uplink is None:
        text = 'a NetVM needs its way out, expected uplink = "host", "lab" or a NIC'
        yield Problem(domain.name, None, text)
    if domain.policy != ACCEPT_ALL:
        text = (
            "firewall: nothing stands before a NetVM that could apply it, expected none"
        )
        yield Problem(domain.name, "firewall", text)


def _netvm_problems(domain: Domain, by_name: Mapping[str, Domain]) -> Iterator[Problem]:
    link = domain.netvm
    if link is None:
        return
    providers = [d.name for d in by_name.values() if d.provides_network]
    if link not in by_name:
        text = f'netvm = "{link}": no such domain, {expected(link, providers)}'
        yield Problem(domain.name, "netvm", text)
    elif link not in providers:
        text = (
            f'netvm = "{link}": {link} provides no network, '
            f"{expected(link, [p for p in providers if p != domain.name])}"
        )
        yield Problem(domain.name, "netvm", text)
    elif domain.name in (hops := _path(domain.name, by_name)):
        loop = hops[: hops.index(domain.name) + 1]
        if domain.name == min(loop):
            arrows = " -> ".join((domain.name, *loop))
            text = f"netvm: a loop, {arrows}, expected a path that ends at a NetVM"
            yield Problem(domain.name, "netvm", text)

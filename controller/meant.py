# SPDX-License-Identifier: GPL-2.0-or-later
"""Which addresses an assertion is about."""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TypeVar

from controller.assertions import Assertion, Home, Reach
from controller.domains import Domains
from controller.nowhere import NEVER, RESOLVERS
from rules.decide import Names
from rules.model import AddressRange, Anywhere, Name, Network

N = TypeVar("N", IPv4Network, IPv6Network)

_EVERYWHERE = (ip_network("0.0.0.0/0"), ip_network("::/0"))


def meant(
    assertion: Assertion, domains: Domains, names: Names
) -> tuple[AddressRange, ...]:
    """Return them; none if all that it names has no known address.

    Who writes 10.0.0.0/8 thinks of a network outside, not of the domains and the
    virtual resolvers in it.  Who writes nothing thinks of questions for names, too,
    unless everything is to be reached.
    """
    found: list[AddressRange] = []
    for target in assertion.targets:
        match target:
            case Home(name):
                domain = domains.named(name)
                found += (ip_network(domain.ip4), ip_network(domain.ip6))
            case Name(host):
                known = names.get(host, frozenset())
                found += map(ip_network, sorted(known, key=int))
            case Network(prefix):
                found += _outside(prefix) or (prefix,)
            case Anywhere():
                found += [part for each in _EVERYWHERE for part in _outside(each)]
                if not isinstance(assertion.expect, Reach):
                    found += map(ip_network, sorted(RESOLVERS, key=int))
    return tuple(found)


def _outside(whole: AddressRange) -> tuple[AddressRange, ...]:
    """Return what of a prefix can be reached at all."""
    match whole:
        case IPv4Network():
            return _left(whole, (n for n in NEVER if isinstance(n, IPv4Network)))
        case IPv6Network():
            return _left(whole, (n for n in NEVER if isinstance(n, IPv6Network)))


def _left(whole: N, apart: Iterable[N]) -> tuple[N, ...]:
    left = [whole]
    for network in apart:
        left = [part for each in left for part in _without(each, network)]
    return tuple(left)


def _without(whole: N, network: N) -> Iterable[N]:
    if whole.subnet_of(network):
        return ()
    return whole.address_exclude(network) if network.subnet_of(whole) else (whole,)

# SPDX-License-Identifier: GPL-2.0-or-later
"""The routing layer: forwarded packets never consult table main.

It holds without a single nftables rule.  Routing rules are per role and not
per vif: the kernel walks them one by one for every packet it forwards
(net/core/fib_rules.c), so their number must not grow with the clients.  What a
DHCP server or a provider puts into main (TunnelVision, CVE-2024-3661) concerns
this domain's own traffic alone.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network

from rules.facts import Client, Facts, Uplink
from rules.flows import FORWARDING, Allowed
from rules.model import Address, AddressRange, Family, family
from rules.remember import LastTime

MAIN = 254
CLIENTS = 10137
UPSTREAM = 10139

TO_CLIENTS = 90
OWN = 100
OWN_END = 101
FROM_UPLINK = 110
FROM_CLIENTS = 120
END = 121

ANY = {Family.IPV4: ip_network("0.0.0.0/0"), Family.IPV6: ip_network("::/0")}
BEST = 1  # the metric of the first uplink; 0 is another number in IPv6
NEWEST = 32752  # the largest serial of a vif (vif-route-qubes)


@dataclass(frozen=True, slots=True)
class Rule:
    """A routing rule; ``table`` None means unreachable."""

    family: Family
    priority: int
    table: int | None
    iif: str | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """A route.  ``index`` is the ifindex it leaves by, ``metric`` its cost."""

    table: int
    prefix: AddressRange
    index: int
    gateway: Address | None = None
    metric: int = 0


@dataclass(frozen=True, slots=True)
class Routing:
    """Every routing rule, and by link every route of the two tables that are ours."""

    rules: frozenset[Rule]
    routes: Mapping[int, tuple[Route, ...]]


def routing(allowed: Allowed, facts: Facts) -> Routing:
    """Return the routing of a state; a state without clients has no way out."""
    clients = [(client, client.index) for client in facts.clients]
    indexes = (index for _, index in clients)
    routes = dict(zip(indexes, _to_each(clients), strict=True))
    if allowed & FORWARDING:
        for place, uplink in enumerate(facts.ways):
            each = dict.fromkeys(_upstream(uplink, BEST + place))
            routes[uplink.index] = tuple(each)
    names = [uplink.name for uplink in {*facts.uplinks, *facts.ways}]
    rules = {rule for version in Family for rule in _rules(version, names)}
    return Routing(frozenset(rules), routes)


def _rules(version: Family, uplinks: list[str]) -> Iterator[Rule]:
    yield Rule(version, TO_CLIENTS, CLIENTS)
    # "lo" as the incoming interface means: sent by this host itself.
    yield Rule(version, OWN, MAIN, "lo")
    yield Rule(version, OWN_END, None, "lo")
    for name in uplinks:
        yield Rule(version, FROM_UPLINK, None, name)
    yield Rule(version, FROM_CLIENTS, UPSTREAM)
    yield Rule(version, END, None)


@LastTime
def _to_each(client: Client, index: int) -> tuple[Route, ...]:
    # As in vif-route-qubes: of two vifs with one address the newer wins.
    serial = int(client.vif.removeprefix("vif").partition(".")[0])
    return tuple(
        # Not 0 for the newest of all: in IPv6 that stands for 1024.
        Route(CLIENTS, ip_network(address), index, metric=NEWEST + 1 - serial)
        for address in client.addresses
    )


def _upstream(uplink: Uplink, metric: int) -> Iterator[Route]:
    for network in uplink.networks:
        yield Route(UPSTREAM, network, uplink.index, metric=metric)
    # Of several next hops of one version the first is the best.
    for gateway in {family(a): a for a in reversed(uplink.gateways)}.values():
        prefix = ANY[family(gateway)]
        yield Route(UPSTREAM, prefix, uplink.index, gateway, metric)

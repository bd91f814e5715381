# SPDX-License-Identifier: GPL-2.0-or-later
"""Why a packet passes or not: the verdict at each domain on its way.

The rules of a domain are applied by its netvm.  Every hop sends on under its own
address, so the next one applies the rules of the hop, not those of the domain.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import pairwise

from controller.amend import rule_text
from controller.anywhere import hops_anywhere, without_network
from controller.domains import (
    Domain,
    Domains,
    HostUplink,
    LabUplink,
    Nic,
)
from controller.hop import Hop, Verdict
from controller.nowhere import CARRIED, RESOLVERS, carries, unreachable
from controller.question import PROTOS, Question
from rules.decide import ICMP, ICMPV6, Names, Packet, alive, decide
from rules.flows import PING
from rules.model import (
    Action,
    Address,
    Family,
    Name,
    Policy,
    family,
)

ECHO = {ICMP: 8, ICMPV6: 128}


@dataclass(frozen=True, slots=True)
class Route:
    """The hops towards one address of the destination, up to the one that denies.

    ``packet`` is what was asked about, None without a known address.
    """

    destination: str
    hops: tuple[Hop, ...]
    packet: Packet | None = None

    @property
    def verdict(self) -> Verdict:
        """The last word."""
        return self.hops[-1].verdict


def explain(
    domains: Domains, source: str, asked: Question, *, names: Names, now: int
) -> tuple[Route, ...]:
    """Return what happens to the flow, for each address the host has.

    It has those that the domain was told, if it was asked.  Without any, it is what
    happens whatever the address is, as far as that can be said.  ``names`` are the
    addresses that names have by now, ``now`` is in seconds since the Unix epoch.
    Raise `UnknownDomainError` for the source.
    """
    domain = domains.named(source)
    found = _addresses(asked, names)
    if not found:
        return (Route(asked.host, tuple(hops_anywhere(domains, domain, asked, now))),)
    ordered = sorted(found, key=lambda address: (family(address).value, address.packed))
    packets = [_packet(asked, address) for address in ordered]
    return tuple(
        Route(str(p.dst), tuple(hops(domains, domain, p, names, now)), p)
        for p in packets
    )


def _addresses(asked: Question, names: Names) -> frozenset[Address]:
    if asked.told is not None:
        return frozenset(asked.told)
    try:
        return frozenset({ip_address(asked.host)})
    except ValueError:
        return names.get(asked.host, frozenset())


def _packet(asked: Question, address: Address) -> Packet:
    proto = PROTOS[asked.proto]
    if proto == ICMP and family(address) is Family.IPV6:
        proto = ICMPV6
    return Packet(address, proto, asked.port, ECHO.get(proto))


def hops(
    domains: Domains, source: Domain, packet: Packet, names: Names, now: int
) -> Iterator[Hop]:
    """Yield what becomes of a new flow at each domain, up to the one that denies."""
    path = domains.path(source.name)
    stop = _before_rules(domains, source, path, packet)
    if stop is not None:
        yield stop
        return
    for client, netvm in pairwise((source, *path)):
        hop = _by_rules(client, netvm, packet, names, now)
        if hop.verdict is Verdict.ACCEPT and not carries(netvm, packet):
            hop = Hop(netvm.name, Verdict.DENY, None, CARRIED)
        yield hop
        if hop.verdict is not Verdict.ACCEPT:
            return
        if netvm.personality is not None and netvm.personality.daemons:
            # What leaves from here on is another packet, of the daemon's own.
            reason = f"carried on by its {netvm.personality.value}"
            yield Hop(netvm.name, Verdict.ACCEPT, None, reason)
            return
    yield Hop(path[-1].name, Verdict.ACCEPT, None, _way_out(path[-1], packet))


def _before_rules(
    domains: Domains, source: Domain, path: tuple[Domain, ...], packet: Packet
) -> Hop | None:
    """Return what decides without any rule being asked."""
    stop = without_network(source, path)
    if stop is not None:
        return stop
    if family(packet.dst) is Family.IPV6 and not domains.has_ipv6(source.name):
        off = next(d.name for d in (source, *path) if not d.ipv6)
        reason = f"it has no IPv6: ipv6 = false at {off}"
        return Hop(source.name, Verdict.DENY, None, reason)
    netvm = path[0]
    if packet.dst in (netvm.ip4, netvm.ip6) and _is_echo(packet):
        return Hop(netvm.name, Verdict.ACCEPT, None, PING.name)
    why = unreachable(domains, netvm, packet)
    if why is not None:
        return Hop(netvm.name, Verdict.DENY, None, why)
    return None


def _is_echo(packet: Packet) -> bool:
    return packet.icmp_type is not None and packet.icmp_type == ECHO.get(packet.proto)


def _by_rules(
    client: Domain, netvm: Domain, packet: Packet, names: Names, now: int
) -> Hop:
    decision = decide(client.policy, packet, names, RESOLVERS, now)
    accepted = decision.action is Action.ACCEPT
    if decision.rule is None:
        rule, reason = None, f"no rule of {client.name} matches"
    else:
        rule = rule_text(client.policy.rules[decision.rule])
        reason = f"rule {decision.rule} of {client.name}"
    unresolved = _unresolved(client.policy, decision.rule, names, now)
    if unresolved:
        reason += f"; no known address: {', '.join(unresolved)}"
    verdict = Verdict.ACCEPT if accepted else Verdict.DENY
    return Hop(netvm.name, verdict, rule, reason)


def _unresolved(
    policy: Policy, before: int | None, names: Names, now: int
) -> tuple[str, ...]:
    """Return the names that were asked for before rule ``before``, in vain."""
    hosts = (
        rule.destination.host
        for rule in policy.rules[:before]
        if isinstance(rule.destination, Name) and alive(rule, now)
    )
    return tuple(dict.fromkeys(host for host in hosts if not names.get(host)))


def _way_out(netvm: Domain, packet: Packet) -> str:
    if packet.dst in RESOLVERS:
        return f"answered by the resolver of {netvm.name}"
    match netvm.uplink:
        case HostUplink():
            return "leaves by the connection of this machine"
        case LabUplink():
            return "leaves into the embedded internet"
        case Nic(name):
            return f"leaves by {name}"
        case None:
            return "leaves"

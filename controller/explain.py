# SPDX-License-Identifier: GPL-2.0-or-later
"""Why a packet passes or not: the verdict at each domain on its way.

The rules of a domain are applied by its netvm.  Every hop sends on under its own
address, so the next one applies the rules of the hop, not those of the domain.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address
from itertools import pairwise

from controller.amend import rule_text
from controller.domains import (
    Domain,
    Domains,
    HostUplink,
    LabUplink,
    Nic,
    Personality,
)
from controller.nearest import one_of
from controller.nowhere import RESOLVERS, carries, unreachable
from rules.decide import ICMP, ICMPV6, TCP, UDP, Names, Packet, alive, decide
from rules.flows import PING
from rules.model import (
    MAX_PORT,
    Action,
    Address,
    Family,
    Name,
    Policy,
    family,
)

ECHO = {ICMP: 8, ICMPV6: 128}
PROTOS: Mapping[str, int] = {"tcp": TCP, "udp": UDP, "icmp": ICMP}
DESTINATION = re.compile(
    r"(?:\[(?P<ip6>[^]]+)\]|(?P<host>[^:]+)|(?P<bare>[^:]*(?::[^:]*){2,}))"
    r"(?::(?P<port>[0-9]{1,5}))?\Z"
)


class Verdict(Enum):
    """What becomes of the packet at one domain."""

    ACCEPT = "accept"
    DENY = "deny"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Hop:
    """The verdict at ``domain``; ``rule`` is the deciding rule's text, if any."""

    domain: str
    verdict: Verdict
    rule: str | None
    reason: str


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


@dataclass(frozen=True, slots=True)
class Question:
    """A new flow: ``proto`` is tcp, udp or icmp (an echo request)."""

    host: str
    proto: str
    port: int | None


class QuestionError(ValueError):
    """A destination that cannot be read."""


def question(proto: str | None, untrusted_destination: str) -> Question:
    """Read ``HOST``, ``HOST:PORT``, ``ADDRESS6`` or ``[ADDRESS6]:PORT``.

    Without ``proto`` a port means tcp and no port a ping.
    """
    found = DESTINATION.match(untrusted_destination)
    if found is None:
        raise QuestionError(
            f"{untrusted_destination}: no destination, expected HOST, HOST:PORT "
            "or [ADDRESS]:PORT"
        )
    port = None if found["port"] is None else int(found["port"])
    asked = proto or ("icmp" if port is None else "tcp")
    if asked not in PROTOS:
        raise QuestionError(f"{asked}: no protocol here, expected {one_of(PROTOS)}")
    host = found["ip6"] or found["host"] or found["bare"]
    if asked == "icmp" and port is not None:
        raise QuestionError(f"icmp has no ports, expected {host}")
    if asked != "icmp" and (port is None or port > MAX_PORT):
        raise QuestionError(f"{asked} needs a port, expected {host}:PORT, 0 to 65535")
    return Question(host, asked, port)


def explain(
    domains: Domains, source: str, asked: Question, *, names: Names, now: int
) -> tuple[Route, ...]:
    """Return what happens to the flow, for each address the host has.

    ``names`` are the addresses that names have by now, ``now`` is in seconds
    since the Unix epoch.  Raise `UnknownDomainError` for the source.
    """
    domain = domains.named(source)
    try:
        found = frozenset({ip_address(asked.host)})
    except ValueError:
        found = names.get(asked.host, frozenset())
    if not found:
        hop = Hop(source, Verdict.UNKNOWN, None, f"{asked.host}: no known address")
        return (Route(asked.host, (hop,)),)
    ordered = sorted(found, key=lambda address: (family(address).value, address.packed))
    packets = [_packet(asked, address) for address in ordered]
    return tuple(
        Route(str(p.dst), tuple(hops(domains, domain, p, names, now)), p)
        for p in packets
    )


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
            reason = "it carries nothing but TCP and questions for names"
            hop = Hop(netvm.name, Verdict.DENY, None, reason)
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
    if not path and source.personality == Personality.NETVM:
        reason = "its own traffic: no rules stand before a NetVM"
        return Hop(source.name, Verdict.ACCEPT, None, reason)
    if not path:
        reason = "it has no netvm: it never gets an interface"
        return Hop(source.name, Verdict.DENY, None, reason)
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

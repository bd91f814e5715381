# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether what a policy file means keeps what it asserts, before anything changes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from controller.assertions import Assertion, Blocked, OnlyThrough, Reach
from controller.domains import Domains
from controller.explain import ECHO, hops
from controller.hop import Verdict
from controller.meant import meant
from controller.reach import Reach as Sets
from proof.diagram import Node, OverrunError
from proof.explore import Point, pick
from proof.fields import DPORT, ORIGINAL_DST, PROTO, SPORT
from rules.decide import ICMP, ICMPV6, TCP, UDP, Names, Packet
from rules.model import (
    Action,
    Address,
    Family,
    Name,
    Proto,
    Rule,
)

_WORDS = {TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMPV6: "icmp"}
_TYPE = 8  # bits of the first word of ICMP below its type
# Documentation addresses (RFC 5737, RFC 3849): more telling than the lowest one.
_TELLING = {
    Family.IPV4: int(IPv4Address("192.0.2.1")),
    Family.IPV6: int(IPv6Address("2001:db8::1")),
}
_LIKED = {
    PROTO: (TCP, UDP, ICMP, ICMPV6),
    DPORT: (443, 80, 22, 53),
    SPORT: (8 << _TYPE, 128 << _TYPE),
}


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The assertions that fail, and those that cannot be judged yet, a line each."""

    failing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    def __add__(self, other: "Verdicts") -> "Verdicts":
        return Verdicts(self.failing + other.failing, self.unknown + other.unknown)


@dataclass(slots=True)
class Judge:
    """Judges by what the lists of domains mean.

    ``names`` and ``now`` are those of `controller.explain.explain`.
    """

    domains: Domains
    names: Names
    now: int
    sets: tuple[Sets, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Begin with an empty memory."""
        self.sets = tuple(Sets(version, self.names, self.now) for version in Family)

    def verdicts(self, asserted: Iterable[Assertion]) -> Iterator[Verdicts]:
        """Yield what there is to say of each assertion."""
        for assertion in asserted:
            try:
                found = [
                    f"{source} {what}"
                    for source in assertion.sources
                    for what in self.against(assertion, source)
                ]
                doubts = [*self.nameless(assertion)]
            except OverrunError as error:
                found, doubts = [], [str(error)]
            where = f"{assertion.line}: {assertion}"
            yield Verdicts(
                tuple(f"{where}, but {what}" for what in found[:1]),
                tuple(f"{where}: {what}" for what in doubts),
            )

    def nameless(self, assertion: Assertion) -> Iterator[str]:
        """Yield why an assertion is not judged, or not wholly."""
        for target in assertion.targets:
            if isinstance(target, Name) and not self.names.get(target.host):
                yield f"{target.host} has no known address"

    def against(self, assertion: Assertion, source: str) -> Iterator[str]:
        """Yield what speaks against an assertion, with a packet."""
        for sets in self.sets:
            liked = {ORIGINAL_DST: (_TELLING[sets.version],), **_LIKED}
            packet = pick(sets.space, self._wrong(assertion, source, sets), liked=liked)
            if packet is not None:
                yield self._shown(_packet(packet, sets.version), source)

    def _wrong(self, assertion: Assertion, source: str, sets: Sets) -> Node:
        """Return the packets with which it is not as it should be."""
        space, about = sets.space, self._about(assertion, sets)
        match assertion.expect:
            case Reach():
                return self._denied(assertion, source, sets)
            case Blocked():
                return space.both(about, sets.of(self.domains, source))
            case OnlyThrough(domain):
                if domain in {d.name for d in self.domains.path(source)}:
                    return space.false
                return space.both(about, sets.out(self.domains, source))

    def _denied(self, assertion: Assertion, source: str, sets: Sets) -> Node:
        """Return what is meant and does not get there."""
        others = [each for each in self.sets if each is not sets]
        elsewhere = any(
            each.connected(self.domains, source)
            and self._about(assertion, each) is not each.space.false
            for each in others
        )
        if elsewhere and not sets.connected(self.domains, source):
            return sets.space.false  # meant in the IP version that it has
        reached = sets.of(self.domains, source)
        return sets.space.minus(self._about(assertion, sets), reached)

    def _about(self, assertion: Assertion, sets: Sets) -> Node:
        """Return the packets that an assertion is about."""
        reach = isinstance(assertion.expect, Reach)
        rule = Rule(
            Action.ACCEPT,
            proto=assertion.proto,
            ports=assertion.ports,
            icmp_type=ECHO[ICMP] if reach and assertion.proto is Proto.ICMP else None,
        )
        networks = meant(assertion, self.domains, self.names)
        about = sets.towards(networks)
        return sets.space.both(about, sets.matched(rule))

    def _shown(self, packet: Packet, source: str) -> str:
        """Return what happens to a packet, by which rule."""
        domain = self.domains.named(source)
        way = [*hops(self.domains, domain, packet, self.names, self.now)]
        denied = way[-1].verdict is not Verdict.ACCEPT
        hop = way[-1] if denied else way[0]
        rule = "" if hop.rule is None else f": {hop.rule}"
        said = "does not reach" if denied else "reaches"
        return f"{said} {_words(packet)} (at {hop.domain}, {hop.reason}{rule})"


def _packet(point: Point, version: Family) -> Packet:
    number, proto = point[ORIGINAL_DST], point[PROTO]
    address: Address = (
        IPv4Address(number) if version is Family.IPV4 else IPv6Address(number)
    )
    port = point[DPORT] if proto in (TCP, UDP) else None
    kind = point[SPORT] >> _TYPE if proto in (ICMP, ICMPV6) else None
    return Packet(address, proto, port, kind)


def _words(packet: Packet) -> str:
    proto = _WORDS.get(packet.proto, f"protocol {packet.proto}")
    port = "" if packet.port is None else f"/{packet.port}"
    kind = "" if packet.icmp_type is None else f" type {packet.icmp_type}"
    return f"{packet.dst} {proto}{port}{kind}"

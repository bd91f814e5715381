# SPDX-License-Identifier: GPL-2.0-or-later
"""What a client's list means.

`decide` is the one meaning, for new packets and for flows that already run;
`rules.ground` and the compiler are tested against it.  Where the meaning
differs from Qubes: ``docs/reference/rule-language.md``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from rules.emit import api_line
from rules.model import (
    Action,
    Address,
    Anywhere,
    ClientPolicy,
    Family,
    Name,
    Network,
    Policy,
    Proto,
    Refused,
    Rule,
)
from rules.model import family as family_of

Names = Mapping[str, frozenset[Address]]
"""Host name to the addresses it has now; absent or empty: not known to have any."""

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
"""IANA protocol numbers."""

DNS_PORT = 53

_FIRST_ICMPV6_TYPE = 128
_ICMPV6_TYPES = MappingProxyType(
    {
        8: frozenset({128}),  # echo request
        0: frozenset({129}),  # echo reply
        3: frozenset({1, 2}),  # unreachable; "too big" is a code of it in IPv4
        11: frozenset({3}),  # time exceeded
        12: frozenset({4}),  # parameter problem
    }
)
"""The ICMPv6 types (RFC 4443) that say what an ICMPv4 type (RFC 792) says."""


@dataclass(frozen=True, slots=True)
class Packet:
    """The first packet of a flow, as the client sent it.

    ``dst`` is the address before any translation; ``proto`` the IANA number of
    the upper layer, after all extension headers; ``port`` the destination port
    of TCP and UDP; ``icmp_type`` the type number of its own family.
    """

    dst: Address
    proto: int
    port: int | None = None
    icmp_type: int | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens to a packet, by which rule (an index, from 0), and why.

    ``rule`` is None when the default decided, or a list that is `Refused`.
    """

    action: Action
    rule: int | None
    reason: str


def decide(
    policy: ClientPolicy,
    packet: Packet,
    names: Names,
    resolvers: frozenset[Address],
    now: int,
) -> Decision:
    """Return what the first rule that matches says, else the default.

    ``resolvers`` are the addresses that ``specialtarget=dns`` stands for, the
    virtual ones a client is given and the real ones behind them; ``now`` is in
    seconds since the Unix epoch.
    """
    match policy:
        case Refused(reason):
            return Decision(Action.DROP, None, reason)
        case Policy(rules, default):
            for index, rule in enumerate(rules):
                if (
                    alive(rule, now)
                    and _goes_to(rule, packet.dst, names, resolvers)
                    and _carries(rule, packet)
                ):
                    return Decision(rule.action, index, api_line(rule))
            return Decision(default, None, "no rule matches")


def alive(rule: Rule, now: int) -> bool:
    """Return whether the rule still exists: its last second is ``expire`` - 1."""
    return rule.expire is None or rule.expire > now


def protocols(rule: Rule, family: Family) -> frozenset[int] | None:
    """Return the protocol numbers the rule is about, None for all."""
    match rule.proto:
        case Proto.TCP:
            return frozenset({TCP})
        case Proto.UDP:
            return frozenset({UDP})
        case Proto.ICMP:
            return frozenset({ICMP if family is Family.IPV4 else ICMPV6})
        case None:
            with_ports = rule.ports is not None or rule.special is not None
            return frozenset({TCP, UDP}) if with_ports else None


def icmp_types(rule: Rule, family: Family) -> frozenset[int] | None:
    """Return the ICMP types the rule is about in this family, None for all."""
    number = rule.icmp_type
    if number is None:
        return None
    if family is Family.IPV4 or number >= _FIRST_ICMPV6_TYPE:
        return frozenset({number})
    return _ICMPV6_TYPES.get(number, frozenset())


def _goes_to(
    rule: Rule, dst: Address, names: Names, resolvers: frozenset[Address]
) -> bool:
    if rule.special is not None and dst not in resolvers:
        return False
    match rule.destination:
        case Anywhere():
            return True
        case Network(prefix):
            return dst in prefix
        case Name(host):
            return dst in names.get(host, frozenset())


def _carries(rule: Rule, packet: Packet) -> bool:
    family = family_of(packet.dst)
    wanted = protocols(rule, family)
    types = icmp_types(rule, family)
    if wanted is not None and packet.proto not in wanted:
        return False
    if types is not None and packet.icmp_type not in types:
        return False
    if rule.special is not None and packet.port != DNS_PORT:
        return False
    if rule.ports is None:
        return True
    return packet.port is not None and (
        rule.ports.first <= packet.port <= rule.ports.last
    )

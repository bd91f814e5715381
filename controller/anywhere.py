# SPDX-License-Identifier: GPL-2.0-or-later
"""What becomes of a flow whatever the address of its destination is.

Who does not know the address may still know the verdict: no rule of a list may be
about such a port, or none about some destinations alone.  What is said here is what
`controller.explain` says of every address there is, in both IP versions; a test
compares the two.  So nothing is accepted here that a list stands before: some
addresses are never forwarded, and a name may have one of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from itertools import pairwise

from controller.amend import rule_text
from controller.domains import Domain, Domains, Personality
from controller.hop import Hop, Verdict
from controller.nowhere import CARRIED, carries
from controller.question import PROTOS, Question
from rules.decide import DNS_PORT, Packet, decide
from rules.model import Action, Anywhere, Policy, Rule

# To TCP and UDP both IP versions are the same, so one address stands for all.
_SOME = IPv4Address("192.0.2.1")


@dataclass(frozen=True, slots=True)
class _Decision:
    """What a list says: ``rule`` is the index of the deciding one, if any.

    ``contrary`` is that of an earlier one which says otherwise of some addresses,
    ``sure`` whether no earlier one says the same of some.
    """

    action: Action
    rule: int | None
    contrary: int | None
    sure: bool


def without_network(source: Domain, path: tuple[Domain, ...]) -> Hop | None:
    """Return what is decided of a domain before which no list stands."""
    if path:
        return None
    if source.personality == Personality.NETVM:
        reason = "its own traffic: no rules stand before a NetVM"
        return Hop(source.name, Verdict.ACCEPT, None, reason)
    reason = "it has no netvm: it never gets an interface"
    return Hop(source.name, Verdict.DENY, None, reason)


def hops_anywhere(
    domains: Domains, source: Domain, asked: Question, now: int
) -> Iterator[Hop]:
    """Yield what is known of the flow at each domain, up to where it is not.

    ``now`` is in seconds since the Unix epoch.
    """
    path = domains.path(source.name)
    stop = without_network(source, path)
    if stop is not None:
        yield stop
        return
    flow = _Flow(source, asked, now)
    if asked.proto == "icmp":
        # The rules ask for other types in IPv6, and no rule for a ping of the netvm.
        yield flow.unknown(source, "")
        return
    for client, netvm in pairwise((source, *path)):
        hop = flow.at(client, netvm)
        yield hop
        if hop.verdict is not Verdict.ACCEPT:
            return
        if netvm.personality is not None and netvm.personality.daemons:
            break
    yield flow.unknown(netvm, ", and some are never forwarded")


@dataclass(frozen=True, slots=True)
class _Flow:
    source: Domain
    asked: Question
    now: int

    @property
    def packet(self) -> Packet:
        """Its first packet, to an address that stands for all."""
        return Packet(_SOME, PROTOS[self.asked.proto], self.asked.port)

    def at(self, client: Domain, netvm: Domain) -> Hop:
        """Return what the list of ``client`` says, and what ``netvm`` can do."""
        rules = client.policy.rules
        found = _decided(client.policy, self.packet, self.now)
        if found.contrary is not None:
            depends = f", and rule {found.contrary} of {client.name} depends on it"
            text = rule_text(rules[found.contrary])
            return replace(self.unknown(netvm, depends), rule=text)
        accepted = found.action is Action.ACCEPT
        if accepted and not carries(netvm, self.packet):
            if self.packet.port == DNS_PORT:
                return self.unknown(netvm, ", and it may be a virtual resolver")
            return Hop(netvm.name, Verdict.DENY, None, CARRIED)
        rule = None if found.rule is None else rule_text(rules[found.rule])
        verdict = Verdict.ACCEPT if accepted else Verdict.DENY
        reason = f"{_by(found)} of {client.name}, whatever its address"
        return Hop(netvm.name, verdict, rule, reason)

    def unknown(self, at: Domain, why: str) -> Hop:
        """Return that nothing is known, and how more would be."""
        host, source = self.asked.host, self.source.name
        if self.asked.told is None:
            hint = f"; --resolve has {source} ask for it"
            reason = f"{host}: no known address{why}{hint}"
        else:
            reason = f"{host}: {source} was told no address{why}"
        return Hop(at.name, Verdict.UNKNOWN, None, reason)


def _by(found: _Decision) -> str:
    if found.rule is None:
        return "no rule"
    return f"rule {found.rule}" if found.sure else f"rule {found.rule} or one before it"


def _decided(policy: Policy, packet: Packet, now: int) -> _Decision:
    """Return what the first rule says that is about every address."""
    depending: list[int] = []
    number, action = None, policy.default
    for index, rule in enumerate(policy.rules):
        if not _may_match(rule, packet, now):
            continue
        if rule.destination == Anywhere() and rule.special is None:
            number, action = index, rule.action
            break
        depending.append(index)
    contrary = (each for each in depending if policy.rules[each].action is not action)
    return _Decision(action, number, next(contrary, None), not depending)


def _may_match(rule: Rule, packet: Packet, now: int) -> bool:
    """Whether there is an address with which the rule decides."""
    alone = Policy((replace(rule, destination=Anywhere()),))
    return decide(alone, packet, {}, frozenset({packet.dst}), now).rule is not None

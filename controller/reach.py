# SPDX-License-Identifier: GPL-2.0-or-later
"""What a policy file means: the packets of a domain that get out, as a set.

`controller.explain` says the same of one packet; a test compares the two.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import reduce
from ipaddress import ip_network
from types import MappingProxyType

from controller.domains import Domains
from controller.explain import ECHO
from controller.nowhere import NEVER, RESOLVERS
from proof.diagram import Node
from proof.fields import DPORT, ORIGINAL_DST, PROTO, SPORT
from proof.policy import accepted
from proof.space import Space
from rules.decide import ICMP, Names
from rules.ground import Ground, ground
from rules.model import (
    Action,
    AddressRange,
    Family,
    Network,
    Policy,
    Proto,
    Rule,
    SpecialTarget,
    family,
)

# The first word of an ICMP message, its type and code, is where a source port is.
_FIELDS = MappingProxyType(
    {
        version: ((ORIGINAL_DST, version.value), (PROTO, 8), (DPORT, 16), (SPORT, 16))
        for version in Family
    }
)
_TCP = Rule(Action.ACCEPT, proto=Proto.TCP)
_NAMES = Rule(Action.ACCEPT, special=SpecialTarget.DNS)


@dataclass(slots=True)
class Reach:
    """The sets of one IP version; ``names`` and ``now`` are those of `explain`.

    Every method may raise `proof.diagram.OverrunError`.
    """

    version: Family
    names: Names
    now: int
    space: Space = field(init=False)
    _lists: dict[int, tuple[Policy, Node]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make the fields of a packet, as its sender sends it."""
        self.space = Space(_FIELDS[self.version])

    def of(self, domains: Domains, name: str) -> Node:
        """Return the new flows of a domain that get out, or are served on the way."""
        if not self.connected(domains, name):
            return self.space.false
        netvm = domains.path(name)[0]
        own = netvm.ip4 if self.version is Family.IPV4 else netvm.ip6
        ping = Rule(
            Action.ACCEPT, Network(ip_network(own)), Proto.ICMP, icmp_type=ECHO[ICMP]
        )
        return self.space.either(self.out(domains, name), self.matched(ping))

    def out(self, domains: Domains, name: str) -> Node:
        """Return the new flows that the lists on the way accept and somebody routes."""
        if not self.connected(domains, name):
            return self.space.false
        accepted, dns = self.by_lists(domains, name), self.matched(_NAMES)
        out = self.space.minus(accepted, self.towards(NEVER))
        return self.space.either(out, self.space.both(accepted, dns))

    def connected(self, domains: Domains, name: str) -> bool:
        """Whether there is such a domain, with a netvm and this IP version."""
        if name not in domains.by_name or not domains.path(name):
            return False
        return self.version is Family.IPV4 or domains.has_ipv6(name)

    def by_lists(self, domains: Domains, name: str) -> Node:
        """Return what the lists on the way accept, and the domains there carry."""
        path = domains.path(name)
        senders = (domains.named(name), *path[:-1])
        limits = [self._list(sender.policy) for sender in senders]
        if any(hop.personality and hop.personality.only_tcp for hop in path):
            limits.append(self.space.either(self.matched(_TCP), self.matched(_NAMES)))
        return reduce(self.space.both, limits)

    def towards(self, networks: Iterable[AddressRange]) -> Node:
        """Return the packets to these networks, those of this version."""
        mine = (network for network in networks if family(network) is self.version)
        level = self.space.levels[ORIGINAL_DST]
        spans = ((int(n.network_address), int(n.broadcast_address)) for n in mine)
        return self.space.within(level, *spans)

    def matched(self, rule: Rule) -> Node:
        """Return the packets that a rule is about."""
        return accepted(self.space, self._ground(Policy((rule,))))

    def _list(self, policy: Policy) -> Node:
        # By identity: a hash would look at every rule of a long list.
        known = self._lists.get(id(policy))
        if known is None:
            node = accepted(self.space, self._ground(policy))
            known = self._lists[id(policy)] = policy, node
        return known[1]

    def _ground(self, policy: Policy) -> Ground:
        return ground(policy, self.version, self.names, RESOLVERS, self.now)

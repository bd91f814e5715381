# SPDX-License-Identifier: GPL-2.0-or-later
"""The compiled rules of every client address, kept up to date.

Only what a change touches is compiled again: an address whose list was
committed, the lists that name a host whose addresses changed, and the lists
that say ``specialtarget=dns`` when the resolvers changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from rules.compile import compile_client
from rules.decide import Packet, decide
from rules.ground import Ground, ground
from rules.model import (
    Action,
    Address,
    ClientPolicy,
    Name,
    Policy,
    Refused,
    family,
)
from rules.objects import Ruleset

Names = Mapping[str, frozenset[Address]]

NOT_COMMITTED = Refused("no rules committed yet")


@dataclass(frozen=True, slots=True)
class Program:
    """A client's list, the names in it, what it means here and now, its objects."""

    policy: ClientPolicy
    hosts: frozenset[str]
    ground: Ground
    objects: Ruleset


@dataclass(slots=True)
class Programs:
    """All programs, by client address; ``parts`` are the objects of each."""

    names: Names = field(default_factory=dict)
    resolvers: frozenset[Address] = frozenset()
    parts: dict[Address | None, Ruleset] = field(default_factory=dict)
    _programs: dict[Address, Program] = field(default_factory=dict)
    _resolved: Mapping[tuple[Address, str], frozenset[Address]] | None = None

    def __getitem__(self, address: Address) -> Program:
        """Return the program of an address; without one, it denies."""
        return self._programs.get(address) or self._compiled(address, NOT_COMMITTED)

    def commit(self, address: Address, policy: ClientPolicy) -> bool:
        """Take a new list; return whether its meaning changed."""
        return self._put(address, self._compiled(address, policy))

    def keep(self, addresses: frozenset[Address]) -> frozenset[Address]:
        """Forget every address but these; return those that have no program yet."""
        present = frozenset(self._programs)  # unlike keys(), not hashed anew
        for gone in present - addresses:
            del self._programs[gone], self.parts[gone]
            self._resolved = None
        return addresses - present

    def learn(self, names: Names, resolvers: frozenset[Address]) -> frozenset[Address]:
        """Take new answers and resolvers; return the addresses they concern."""
        changed = {
            host
            for host in names.keys() | self.names.keys()
            if names.get(host) != self.names.get(host)
        }
        dns = resolvers != self.resolvers
        self.names, self.resolvers = names, resolvers
        if not (changed or dns):
            return frozenset()
        self._resolved = None
        return frozenset(
            address
            for address, program in tuple(self._programs.items())
            if (program.hosts & changed or (dns and _asks_dns(program.policy)))
            and self._put(address, self._compiled(address, program.policy))
        )

    def hosts(self) -> frozenset[str]:
        """Return every host name that a rule speaks of."""
        named = (program.hosts for program in self._programs.values() if program.hosts)
        return frozenset().union(*named)

    def resolved(self) -> Mapping[tuple[Address, str], frozenset[Address]]:
        """Return the addresses of each name in the list of each client.

        It is the same object for as long as that does not change.
        """
        if self._resolved is None:
            self._resolved = {
                (address, host): self.names.get(host, frozenset())
                for address, program in self._programs.items()
                for host in program.hosts
            }
        return self._resolved

    def errors(self) -> Mapping[Address, str]:
        """Return why each refused list was refused."""
        return {
            address: program.policy.reason
            for address, program in self._programs.items()
            if isinstance(program.policy, Refused)
        }

    def allows(self, address: Address, packet: Packet) -> bool:
        """Return whether the rules of ``address`` accept ``packet`` now."""
        policy = self[address].policy
        decision = decide(policy, packet, self.names, self.resolvers, now=0)
        return decision.action is Action.ACCEPT

    def _compiled(self, address: Address, policy: ClientPolicy) -> Program:
        # dom0 leaves expired rules out; their lists never carry a time here.
        meaning = ground(policy, family(address), self.names, self.resolvers, now=0)
        before = self._programs.get(address)
        same = before is not None and before.ground == meaning
        objects = (
            before.objects if before and same else compile_client(address, meaning)
        )
        return Program(policy, _hosts(policy), meaning, objects)

    def _put(self, address: Address, program: Program) -> bool:
        before = self._programs.get(address)
        self._programs[address], self.parts[address] = program, program.objects
        if program.hosts != (before.hosts if before else frozenset()):
            self._resolved = None
        return before is None or before.objects is not program.objects


def _hosts(policy: ClientPolicy) -> frozenset[str]:
    match policy:
        case Refused():
            return frozenset()
        case Policy(rules=rules):
            places = (rule.destination for rule in rules)
            return frozenset(p.host for p in places if isinstance(p, Name))


def _asks_dns(policy: ClientPolicy) -> bool:
    match policy:
        case Refused():
            return False
        case Policy(rules=rules):
            return any(rule.special is not None for rule in rules)

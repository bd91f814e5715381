# SPDX-License-Identifier: GPL-2.0-or-later
"""The hooks of netfilter at one place, and their base chains in order.

The numbers are ``enum nf_ip_hook_priorities`` of ``linux/netfilter_ipv4.h``.
Translation has one priority whatever its chains say (``nf_nat_proto.c``).
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from proof.bytecode import Chain, Family
from proof.diagram import Node
from proof.fields import IPV4
from proof.forwarding import Router
from proof.incoming import Incoming
from proof.machine import Common, Machine
from proof.outcome import End, Env, Nat, Outcome
from proof.relabel import continued
from proof.resolve import Resolver
from proof.routes import Link
from proof.snapshot import Snapshot
from proof.view import View, Viewer, choice

PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING, EGRESS = range(6)
_EGRESS = 1  # NF_NETDEV_EGRESS
WHOLE, TRACKING, TO_TARGET, TO_SOURCE = -399, -200, -100, 100
"""From `WHOLE` on there are no fragments (after NF_IP_PRI_CONNTRACK_DEFRAG)."""


class Stop(Enum):
    """How a packet does not get on: it is gone, or it is for this host."""

    DROPPED = "dropped"
    HERE = "here"
    HANDED_OVER = "handed over"
    """For this host, to which it was translated."""


DROPPED = Stop.DROPPED
Then = Callable[[Env], Node]


@dataclass(slots=True)
class Hooks:
    """The base chains of one place for one IP version, and what they need."""

    net: Snapshot
    version: int
    common: Common
    machine: Machine

    older: "Hooks | None" = None

    def __post_init__(self) -> None:
        """Make what reasons about parts of the way.

        What ``older`` hooks of the same links and routes know is taken over.
        """
        old, self.older = self.older, None
        self.viewer = Viewer(self.common, {}) if old is None else old.viewer
        self.resolver = Resolver(self.viewer)
        router = Router(self.common.space, self.net.routing, self.version, self.doubt)
        self.incoming = Incoming(self.net, router) if old is None else old.incoming
        self.links = {link.index: link for link in self.net.routing.links}

    order: dict[tuple[int, str], list[Chain]] = field(default_factory=dict)
    viewer: Viewer = field(init=False)
    resolver: Resolver = field(init=False)
    incoming: Incoming = field(init=False)
    links: dict[int, Link] = field(init=False)

    @property
    def name(self) -> str:
        """The name of the place."""
        return self.common.name

    def doubt(self, reason: str) -> Node:
        """Return a set that nothing is known of, the same for the same reason."""
        text = f"{self.name}: {reason}"
        level = choice(self.common, text, 1, text)
        return self.common.space.within(level, (1, 1))

    def chains(self, hook: int, device: str = "") -> list[Chain]:
        """Return the base chains of a hook in their order."""
        key = (hook, device)
        if key not in self.order:
            self.order[key] = self._chains(hook, device)
        return self.order[key]

    def _chains(self, hook: int, device: str) -> list[Chain]:
        families = {Family.INET, Family.IP if self.version == IPV4 else Family.IP6}
        number = hook
        if hook == EGRESS:
            families, number = {Family.NETDEV}, _EGRESS
        found = [
            (chain.hook.priority, chain)
            for chain in self.net.bytecode.chains.values()
            if chain.hook is not None
            and chain.place.family in families
            and chain.hook.number == number
            and (hook != EGRESS or device in chain.hook.devices)
        ]
        return [chain for _, chain in sorted(found, key=lambda item: item[0])]

    def split(self, hook: int, *limits: int) -> list[list[Chain]]:
        """Return the filters of a hook, cut before each of these priorities."""
        parts: list[list[Chain]] = [[] for _ in (*limits, 0)]
        for chain in self.chains(hook):
            if chain.hook is not None and chain.hook.kind != "nat":
                passed = [limit for limit in limits if chain.hook.priority >= limit]
                parts[len(passed)].append(chain)
        return parts

    def translating(self, hook: int) -> list[Chain]:
        """Return the chains of a hook that translate."""
        found = self.chains(hook)
        return [c for c in found if c.hook is not None and c.hook.kind == "nat"]

    def follow(self, chains: Sequence[Chain], env: Env, view: View, then: Then) -> Node:
        """Return what comes of packets that these chains accept; else `DROPPED`."""
        if not chains:
            return then(env)
        first, *rest = chains

        def on(value: Hashable) -> Hashable | Node:
            match value:
                case Outcome(End.ACCEPT, left):
                    return self.resolver.fixed(
                        left, view, lambda env: self.follow(rest, env, view, then)
                    )
                case _:
                    return DROPPED

        result = self.machine.hooked(first.place, env)
        return continued(self.common.space, self.viewer.seen(result, view), on)

    def translate(
        self,
        chains: Sequence[Chain],
        env: Env,
        view: View,
        then: Callable[[Env, Nat | None], Node],
    ) -> Node:
        """Return what comes of packets that the first chain with a wish translates."""
        if not chains:
            return then(env, None)
        first, *rest = chains

        def done(left: Env) -> Node:
            if left.nat:
                return then(replace(left, nat=()), left.nat[-1])
            return self.translate(rest, left, view, then)

        def on(value: Hashable) -> Hashable | Node:
            match value:
                case Outcome(End.ACCEPT, left):
                    return self.resolver.fixed(left, view, done)
                case _:
                    return DROPPED

        result = self.machine.hooked(first.place, env)
        return continued(self.common.space, self.viewer.seen(result, view), on)

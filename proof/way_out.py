# SPDX-License-Identifier: GPL-2.0-or-later
"""The end of the way through a place: translation of the source, and egress."""

from collections.abc import Callable
from dataclasses import dataclass

from proof.diagram import Branch, Leaf, Node
from proof.fields import FRAMED, IIF, NEW, PROTO, SPORT, SRC
from proof.hooks import DROPPED, EGRESS, POSTROUTING, TO_SOURCE, Hooks
from proof.outcome import Env, Nat
from proof.substitute import Field, Meaning
from proof.tracked import FORWARDS, REPLIES, sent_status
from proof.translation import WITH_PORTS, bound_source, source_port
from proof.view import FRAME_SOURCE, STATUS, View, choice

ETHERNET = 1  # ARPHRD_ETHER
OTHERWISE = "a running flow is not translated as flows now are"


@dataclass(frozen=True, slots=True)
class Sent:
    """It leaves by an interface; ``view`` is what it is then."""

    oif: int
    view: View


@dataclass(frozen=True, slots=True)
class WayOut:
    """The way out of one place for packets in a state of conntrack."""

    hooks: Hooks
    ct: int

    def free(self, name: str, reason: str) -> Field:
        """Return a field that nobody knows in place of this one."""
        common = self.hooks.common
        width = common.space.tops[common.space.levels[name]].bit_length()
        text = f"{self.hooks.name}: {reason}"
        return Field(choice(common, f"{text}: {name}", width, text))

    def or_not(self, translated: Node, plain: Callable[[], Node]) -> Node:
        """Return what becomes of a flow that may run since before the rules."""
        if self.ct == NEW:
            return translated
        space = self.hooks.common.space
        doubt = self.hooks.doubt(OTHERWISE)
        return space.over(space.only(doubt, plain()), translated)

    def to_source(self, env: Env, view: View, oif: int) -> Node:
        """Return what becomes of packets that may leave by an interface."""
        hooks = self.hooks
        if self.ct in REPLIES:
            whose = "the sender of a reply"
            free: dict[str, Meaning] = {n: self.free(n, whose) for n in (SRC, SPORT)}
            return self._out(env, view.where(free), oif)
        chains = hooks.translating(POSTROUTING)
        if self.ct not in FORWARDS or not chains:
            return self._out(env, view, oif)
        return hooks.translate(
            chains, env, view, lambda env, nat: self._sourced(env, view, oif, nat)
        )

    def _sourced(self, env: Env, view: View, oif: int, nat: Nat | None) -> Node:
        space = self.hooks.common.space
        if nat is None:
            same = Field(space.levels[SRC])
            return self._out(env, self._told(view, same), oif)
        options = bound_source(self.hooks, self.hooks.links[oif], nat)
        if not options:
            return space.leaf(DROPPED)
        found: Node = space.nothing
        for number, (doubt, fixed) in enumerate(options):
            # Ports are chosen anew; the type of an ICMP message stays.
            ported = space.within(space.levels[PROTO], *((n, n) for n in WITH_PORTS))
            port: dict[str, Meaning] = {SPORT: source_port(self.hooks)}
            on = self._told(view, fixed.get(SRC))
            with_port = self._out(env, on.where(fixed | port), oif)
            other = self._out(env, on.where(fixed), oif)
            both = space.over(space.only(ported, with_port), other)
            last = number == len(options) - 1
            found = space.over(found, both if last else space.only(doubt, both))
        return self.or_not(found, lambda: self._out(env, view, oif))

    def _told(self, view: View, source: Meaning | None) -> View:
        """Return the view once conntrack knows what its sender becomes."""
        before = dict(view.fixed).get(STATUS)
        if self.ct != NEW or not isinstance(before, int | Leaf | Branch):
            return view
        space = self.hooks.common.space
        keeps = self.hooks.doubt("a sender that is translated to itself keeps its port")
        return view.where({STATUS: sent_status(space, before, source, keeps)})

    def _out(self, env: Env, view: View, oif: int) -> Node:
        hooks, link = self.hooks, self.hooks.links[oif]
        after = hooks.split(POSTROUTING, TO_SOURCE)[1]
        framed = link.hardware == ETHERNET
        mac = int.from_bytes(link.mac, "big")
        left: dict[str, Meaning] = {IIF: 0, FRAMED: int(framed), FRAME_SOURCE: mac}
        out = view.where(left)
        end = hooks.common.space.leaf(Sent(oif, out))

        def beyond(env: Env) -> Node:
            return hooks.follow(
                hooks.chains(EGRESS, link.name), env, out, lambda _: end
            )

        return hooks.follow(after, env, view, beyond)

# SPDX-License-Identifier: GPL-2.0-or-later
"""The way of every packet through one place.

As ip_rcv(), ip_forward() and ip_output() and their twins of IPv6 go.
"""

from collections.abc import Hashable
from dataclasses import dataclass, replace

from proof.diagram import Node
from proof.fields import DPORT, DST, NEW, OIF, UNTRACKED
from proof.forwarding import Kind, Way
from proof.hooks import (
    DROPPED,
    FORWARD,
    INPUT,
    POSTROUTING,
    PREROUTING,
    TO_SOURCE,
    TO_TARGET,
    TRACKING,
    WHOLE,
    Hooks,
    Stop,
)
from proof.outcome import Env, Nat
from proof.relabel import continued, relabel, where
from proof.routes import Link
from proof.substitute import Meaning
from proof.tracked import (
    DST_NAT_DONE,
    FORWARDS,
    REPLIES,
    known,
    never_tracked,
    translated_status,
)
from proof.translation import bound_target
from proof.view import STATUS, TIME, View, choice, first_view
from proof.way_out import ETHERNET, WayOut

FIB_KIND = "fib 3 10"  # the type (NFT_FIB_RESULT_ADDRTYPE) of daddr . iif
ANY_TABLE = "any routing table"
UNMARKED = (0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Entry:
    """How packets come in: by an interface, in a state of conntrack.

    ``any_route``: whatever the routing tables are.
    """

    iif: int
    ct: int = NEW
    any_route: bool = False


@dataclass(frozen=True, slots=True)
class Arrival:
    """Packets that come in; ``left`` are those that are not gone for sure by now."""

    hooks: Hooks
    entry: Entry
    link: Link
    left: Node

    @property
    def _exit(self) -> WayOut:
        return WayOut(self.hooks, self.entry.ct)

    def run(self) -> Node:
        """Go through hook prerouting, up to where conntrack looks."""
        hooks, entry = self.hooks, self.entry
        view = first_view(
            hooks.name,
            hooks.version,
            entry.iif,
            framed=self.link.hardware == ETHERNET,
        ).where({FIB_KIND: hooks.incoming.kinds(self.link)})
        pieces, early, *_ = hooks.split(PREROUTING, WHOLE, TRACKING, TO_TARGET)
        env = Env(mark=UNMARKED)
        space = hooks.common.space
        found = hooks.follow(
            pieces,
            env,
            replace(view, pieces=True),
            lambda env: hooks.follow(early, env, view, space.leaf),
        )

        def on(value: Hashable) -> Hashable | Node:
            match value:
                case Env() as env:
                    left = where(space, found, {env})
                    return replace(self, left=left).tracked(env, view)
                case _:
                    return value

        return continued(space, found, on)

    def tracked(self, env: Env, view: View) -> Node:
        """Go on where conntrack has looked at the packets."""
        hooks, space, ct = self.hooks, self.hooks.common.space, self.entry.ct
        if env.untracked and ct != UNTRACKED:
            return space.leaf(DROPPED)  # no such packet
        view = view.where(known(space, ct))
        middle = hooks.split(PREROUTING, TRACKING, TO_TARGET)[1]
        clean = replace(env, nat=(), untracked=False)
        found = hooks.follow(
            middle, clean, view, lambda env: self._to_target(env, view)
        )
        if env.untracked:
            return found
        alone = hooks.viewer.seen(never_tracked(space, hooks.version), view)
        here = alone if ct == UNTRACKED else space.minus(space.true, alone)
        return space.over(space.only(here, found), space.leaf(DROPPED))

    def _to_target(self, env: Env, view: View) -> Node:
        hooks = self.hooks
        if self.entry.ct in REPLIES:
            to = "where a reply goes"
            back: dict[str, Meaning] = {n: self._exit.free(n, to) for n in (DST, DPORT)}
            return self._late(env, view.where(back))
        chains = hooks.translating(PREROUTING)
        if self.entry.ct not in FORWARDS or not chains:
            return self._late(env, view)
        return hooks.translate(
            chains, env, view, lambda env, nat: self._targeted(env, view, nat)
        )

    def _targeted(self, env: Env, view: View, nat: Nat | None) -> Node:
        new = self.entry.ct == NEW
        plain = view.where({STATUS: DST_NAT_DONE} if new else {})
        if nat is None:
            return self._late(env, plain)
        fixed = bound_target(self.hooks, self.link, nat)
        if fixed is None:
            return self.hooks.common.space.leaf(DROPPED)
        space = self.hooks.common.space
        status = {STATUS: translated_status(space, fixed)} if new else {}
        translated = self._late(env, view.where(fixed | status))
        return self._exit.or_not(translated, lambda: self._late(env, plain))

    def _late(self, env: Env, view: View) -> Node:
        late = self.hooks.split(PREROUTING, TRACKING, TO_TARGET)[2]
        return self.hooks.follow(late, env, view, lambda env: self._routed(env, view))

    def _routed(self, env: Env, view: View) -> Node:
        hooks = self.hooks
        if self.entry.any_route:
            name = f"{hooks.name}: {ANY_TABLE}, from {self.link.name}"
            choice(hooks.common, name, 32, name)
            found = hooks.incoming.any_way(self.link, name)
        else:
            found = hooks.incoming.way(self.link, host_number(env))

        ways = hooks.viewer.seen(found, view)
        return self._by_way(env, view, hooks.common.space.only(self.left, ways))

    def _by_way(self, env: Env, view: View, ways: Node) -> Node:
        """Go on with all that is sent at once; most of it will be refused."""
        space = self.hooks.common.space

        def out(value: Hashable) -> int:
            return value.oif if isinstance(value, Way) else 0

        def kind(value: Hashable) -> Hashable:
            return value.kind if isinstance(value, Way) else None

        image = relabel(space, ways, out)
        passed = self._forward(env, view.where({OIF: image}, on=True))

        def on(value: Hashable) -> Hashable | Node:
            match value:
                case Kind.OUT:
                    return passed
                case Kind.HERE:
                    return self._here(env, view)
                case Kind.NOWHERE:
                    return DROPPED
                case _:
                    return value

        found = continued(space, relabel(space, ways, kind), on)

        def split(value: Hashable) -> Hashable | Node:
            match value:
                case Env() as left:
                    here = space.only(where(space, found, {left}), image)
                    return continued(space, here, lambda n: self._leaves(left, view, n))
                case _:
                    return value

        return continued(space, found, split)

    def _leaves(self, env: Env, view: View, oif: Hashable) -> Hashable | Node:
        """Return what becomes of what forward lets out by an interface."""
        if not isinstance(oif, int):
            return None
        hooks, on = self.hooks, view.where({OIF: oif}, on=True)
        before = hooks.split(POSTROUTING, TO_SOURCE)[0]
        return hooks.follow(
            before, env, on, lambda env: self._exit.to_source(env, on, oif)
        )

    def _here(self, env: Env, view: View) -> Node:
        space = self.hooks.common.space
        translated = DST in dict(view.fixed)
        end = space.leaf(Stop.HANDED_OVER if translated else Stop.HERE)
        chains = self.hooks.split(INPUT)[0]
        return self.hooks.follow(chains, env, view, lambda _: end)

    def _forward(self, env: Env, on: View) -> Node:
        hooks, space = self.hooks, self.hooks.common.space
        if not hooks.incoming.forwards(self.link):
            return space.leaf(DROPPED)
        found = hooks.follow(hooks.split(FORWARD)[0], env, on, space.leaf)
        # What has come too far is given up (ip_forward(), ip6_forward()).
        time = space.field(TIME[hooks.version], 8)
        return space.over(
            space.only(space.within(time, (0, 1)), space.leaf(DROPPED)), found
        )


def host_number(env: Env) -> int | None:
    """Return the mark as a number, None if it is not known."""
    mark = env.mark or ()
    known = bytes(byte for byte in mark if isinstance(byte, int))
    return int.from_bytes(known, "little") if len(known) == len(mark) else None

# SPDX-License-Identifier: GPL-2.0-or-later
"""The way out of a domain for what its own processes and its kernel send.

As __ip_local_out() and ip6_local_out().  A route is chosen before hook output, and
once more where one of its chains has translated the target or marked the packet;
what is said here holds for every routing table.
"""

from dataclasses import dataclass, replace

from proof.arrival import UNMARKED
from proof.bytecode import Chain
from proof.diagram import Node
from proof.fields import (
    CT,
    DST,
    FRAMED,
    IIF,
    INVALID,
    NEW,
    OIF,
    SOCKET,
    UID,
    UNTRACKED,
)
from proof.hooks import (
    DROPPED,
    OUTPUT,
    POSTROUTING,
    TO_SOURCE,
    TO_TARGET,
    TRACKING,
    Hooks,
)
from proof.outcome import Env, Nat
from proof.routes import Link
from proof.substitute import Field, Meaning
from proof.tracked import FORWARDS, known
from proof.view import View
from proof.way_out import WayOut


@dataclass(frozen=True, slots=True)
class Departure:
    """What a place sends itself by an interface, in a state of conntrack."""

    hooks: Hooks
    link: Link
    ct: int = NEW

    def run(self) -> Node:
        """Return `Sent` or `Stop` for each packet; fields are its user and socket."""
        space = self.hooks.common.space
        same: dict[str, Meaning] = {
            name: Field(space.field(name, width))
            for name, width in ((SOCKET, 1), (UID, 32))
        }
        first: dict[str, Meaning] = {IIF: 0, CT: INVALID, FRAMED: 0, OIF: self._oif()}
        view = View(self.hooks.name, self.hooks.version).where(same | first)
        early = self._parts[0]
        env = Env(mark=UNMARKED)
        return self.hooks.follow(early, env, view, lambda env: self._seen(env, view))

    @property
    def _parts(self) -> list[list[Chain]]:
        return self.hooks.split(OUTPUT, TRACKING, TO_TARGET)

    def _oif(self) -> Meaning:
        """Return the interface of the first route, which may not be the last."""
        chains = self.hooks.chains(OUTPUT)
        moving = [c for c in chains if c.rules and c.hook and c.hook.kind != "filter"]
        if not moving:
            return self.link.index
        exit_ = WayOut(self.hooks, self.ct)
        return exit_.free(OIF, "the first route of a packet of its own")

    def _seen(self, env: Env, view: View) -> Node:
        """Go on where conntrack has looked at the packets."""
        space = self.hooks.common.space
        if env.untracked is not (self.ct == UNTRACKED) and env.untracked:
            return space.leaf(DROPPED)  # no such packet
        view = view.where(known(space, self.ct))
        clean = replace(env, nat=(), untracked=False)
        return self.hooks.follow(
            self._parts[1], clean, view, lambda env: self._to_target(env, view)
        )

    def _to_target(self, env: Env, view: View) -> Node:
        chains = self.hooks.translating(OUTPUT)
        if self.ct not in FORWARDS or not chains:
            return self._late(env, view)
        return self.hooks.translate(
            chains, env, view, lambda env, nat: self._targeted(env, view, nat)
        )

    def _targeted(self, env: Env, view: View, nat: Nat | None) -> Node:
        if nat is None:
            return self._late(env, view)
        # To itself, or elsewhere: whatever it is, it is not what it was.
        to = "where a packet of its own is translated to"
        free: dict[str, Meaning] = {DST: WayOut(self.hooks, self.ct).free(DST, to)}
        return self._late(env, view.where(free))

    def _late(self, env: Env, view: View) -> Node:
        hooks = self.hooks
        on = view.where({OIF: self.link.index})
        exit_ = WayOut(hooks, self.ct)
        before = hooks.split(POSTROUTING, TO_SOURCE)[0]

        def routed(env: Env) -> Node:
            return hooks.follow(
                before, env, on, lambda env: exit_.to_source(env, on, self.link.index)
            )

        return hooks.follow(self._parts[2], env, view, routed)

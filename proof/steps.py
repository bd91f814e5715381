# SPDX-License-Identifier: GPL-2.0-or-later
"""One packet's way through one place: the twin of `proof.passage` for a single one."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from proof.arrival import FIB_KIND, UNMARKED, host_number
from proof.bytecode import Chain, Family, Place
from proof.explore import possible_at, value_at
from proof.fields import (
    CT,
    CT_MARK,
    DPORT,
    DST,
    FRAGMENTS,
    FRAMED,
    IIF,
    INVALID,
    NEW,
    OIF,
    ORIGINAL_DST,
    SOCKET,
    SPORT,
    SRC,
    UNTRACKED,
)
from proof.forwarding import Kind, Way
from proof.hooks import (
    EGRESS,
    FORWARD,
    INPUT,
    POSTROUTING,
    PREROUTING,
    TO_SOURCE,
    TO_TARGET,
    TRACKING,
    Hooks,
)
from proof.left import EndedError, Left, on_its_way
from proof.machine import Seen
from proof.outcome import End, Env, Nat
from proof.routes import Link
from proof.trace import Trace
from proof.tracked import (
    DST_NAT,
    DST_NAT_DONE,
    FORWARDS,
    SRC_NAT,
    SRC_NAT_DONE,
    never_tracked,
)
from proof.translation import bound_source, bound_target
from proof.view import FRAME_SOURCE, PACKET_TYPE, STATUS, TIME
from proof.way_out import ETHERNET
from proof.wire import point
from proof.world import Packet


@dataclass(slots=True)
class Crossing:
    """A packet that comes in by an interface of a place."""

    hooks: Hooks
    came_by: str
    packet: Packet
    point: dict[str, int] = field(default_factory=dict)
    env: Env = field(default_factory=lambda: Env(mark=UNMARKED))
    seen: list[Seen] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    rule: Seen | None = None
    source: int = 0

    def run(self) -> Left:
        """Return how it leaves."""
        links = {link.name: link for link in self.hooks.links.values()}
        if self.came_by not in links:
            return Left("unsure", (), doubts=(f"there is no {self.came_by}",))
        link = links[self.came_by]
        self.point |= point(self.packet)
        self.point |= {
            IIF: link.index,
            OIF: 0,
            CT: INVALID,
            SOCKET: 0,
            FRAMED: int(link.hardware == ETHERNET),
            FRAGMENTS: 1,
            PACKET_TYPE: 0,
        }
        kinds = self.hooks.incoming.kinds(link)
        kind = value_at(self.hooks.common.space, kinds, self.point)
        self.point[FIB_KIND] = kind if isinstance(kind, int) else 0
        try:
            self._before_routing(link)
            return self._by_route(link)
        except EndedError as ended:
            return ended.left

    def _before_routing(self, link: Link) -> None:
        early, middle, late = self.hooks.split(PREROUTING, TRACKING, TO_TARGET)
        self._pass(early)
        state = self._state()
        self.point[CT] = state
        self.env = replace(self.env, untracked=False)
        if state in FORWARDS:
            self.point |= {
                ORIGINAL_DST: self.point[DST],
                "ct original source": self.point[SRC],
                "ct original source port": self.point[SPORT],
                "ct original destination port": self.point[DPORT],
            }
        if state == NEW:
            self.point |= {STATUS: 0, CT_MARK: 0}
        self._pass(middle)
        if state in FORWARDS:
            nat = self._translate(self.hooks.translating(PREROUTING))
            if state == NEW:
                self.point[STATUS] = DST_NAT_DONE
            if nat is not None:
                self._to_target(link, nat)
        self._pass(late)

    def _state(self) -> int:
        space = self.hooks.common.space
        alone = never_tracked(space, self.hooks.version)
        left_alone = value_at(space, alone, self.point) is True
        return UNTRACKED if left_alone or self.env.untracked else self.packet.state

    def _to_target(self, link: Link, nat: Nat) -> None:
        fixed = bound_target(self.hooks, link, nat)
        if fixed is None:
            raise self._ended("dropped", reason=f"{link.name} has no address")
        before = dict(self.point)
        for name, number in fixed.items():
            self._set(name, number)
        if self.packet.state == NEW and before != self.point:
            self.point[STATUS] |= DST_NAT  # a translation to the same is none

    def _set(self, name: str, number: object) -> None:
        if isinstance(number, int):
            self.point[name] = number
        else:
            self.doubts.append(f"{name} is translated to what is not known")

    def _by_route(self, link: Link) -> Left:
        space = self.hooks.common.space
        found = self.hooks.incoming.way(link, host_number(self.env))
        ways = possible_at(space, found, self.point)
        if len(ways) > 1:
            self.doubts.append("its route is not known")
        match next(iter(ways)):
            case Way(Kind.OUT, oif):
                return self._forward(link, self.hooks.links[oif])
            case Way(Kind.HERE):
                self._pass(self.hooks.split(INPUT)[0])
                return self._left("delivered")
            case _:
                return self._left("unroutable", reason="no route leads on")

    def _forward(self, link: Link, out: Link) -> Left:
        hooks = self.hooks
        if not hooks.incoming.forwards(link):
            return self._left("dropped", reason=f"{link.name} forwards nothing")
        self.point[OIF] = out.index
        time = TIME[hooks.version]
        if self.point[time] <= 1:
            return self._left("dropped", reason="its time to live is over")
        self.point[time] -= 1
        before, after = hooks.split(POSTROUTING, TO_SOURCE)
        self._pass([*hooks.split(FORWARD)[0], *before])
        if self.point[CT] in FORWARDS:
            chains = hooks.translating(POSTROUTING)
            nat = self._translate(chains)
            if chains and self.point[CT] == NEW:
                self.point[STATUS] |= SRC_NAT_DONE
            if nat is not None:
                self._to_source(out, nat)
        self._pass(after)
        self.point |= {
            IIF: 0,
            FRAMED: int(out.hardware == ETHERNET),
            FRAME_SOURCE: int.from_bytes(out.mac, "big"),
        }
        self._pass(hooks.chains(EGRESS, out.name))
        return self._sent(out)

    def _to_source(self, out: Link, nat: Nat) -> None:
        options = bound_source(self.hooks, out, nat)
        if not options:
            raise self._ended("dropped", reason=f"{out.name} has no address")
        before = self.point[SRC]
        for name, number in options[0][1].items():
            self._set(name, number)
        if self.point[SRC] != before and STATUS in self.point:
            self.point[STATUS] |= SRC_NAT
        else:
            self.point.pop(STATUS, None)  # the port may stay, or not
        if len(options) > 1:
            self.source = self.point.pop(SRC)  # one of several: not known

    def _sent(self, out: Link) -> Left:
        mac = ":".join(f"{byte:02x}" for byte in out.mac) or None
        packet = replace(on_its_way(self.packet, self.point, self.source), mac=mac)
        return replace(self._left("sent"), out=out.name, packet=packet)

    def _pass(self, chains: Sequence[Chain]) -> None:
        for chain in chains:
            self._one(chain)

    def _translate(self, chains: Sequence[Chain]) -> Nat | None:
        for chain in chains:
            self._one(chain)
            if self.env.nat:
                nat = self.env.nat[-1]
                self.env = replace(self.env, nat=())
                return nat
        return None

    def _one(self, chain: Chain) -> None:
        trace = Trace(self.hooks.machine, self.point)
        self.seen += trace.hooked(chain.place, self.env)
        self.doubts += trace.doubts
        end, self.env = trace.outcome.end, trace.outcome.env
        if end is not End.ACCEPT:
            verdict = "rejected" if end is End.REJECT else "dropped"
            rule = None if trace.by_policy else self.seen[-1]
            raise self._ended(verdict, chain=chain.place, rule=rule)
        outside = chain.place.family == Family.NETDEV
        if (
            chain.hook is not None
            and chain.hook.number in {INPUT, FORWARD}
            and not outside
        ):
            self.rule = self.rule if trace.by_policy else self.seen[-1]

    def _ended(
        self,
        verdict: str,
        *,
        chain: Place | None = None,
        rule: Seen | None = None,
        reason: str = "",
    ) -> EndedError:
        left = self._left(verdict, reason=reason)
        return EndedError(replace(left, chain=chain, rule=rule))

    def _left(self, verdict: str, reason: str = "") -> Left:
        doubts = tuple(dict.fromkeys(self.doubts))
        seen = tuple(self.seen)
        return Left(verdict, seen, self.rule, reason=reason, doubts=doubts)

# SPDX-License-Identifier: GPL-2.0-or-later
"""One packet's way through domains, with the rule that decides at each.

The packet of a proof is sent this way too, so two ways of reasoning must agree.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from proof.diagram import OverrunError
from proof.hooks import Hooks
from proof.left import Left
from proof.machine import Common, Machine
from proof.space import Space
from proof.steps import Crossing
from proof.world import Hop, Packet, World

_HOPS = 16


def walk(world: World, source: str, packet: Packet) -> tuple[Hop, ...]:
    """Return what each domain does with a packet of a client; none: not connected."""
    return Walker(world).walk(source, packet)


@dataclass(slots=True)
class Walker:
    """Walks packets through one world; the second of them is faster."""

    world: World
    known: dict[tuple[str, int], Hooks] = field(default_factory=dict)

    def walk(self, source: str, packet: Packet) -> tuple[Hop, ...]:
        """Return what each domain does with a packet of a client."""
        for domain, vif in self.world.doors(source):
            return tuple(self.from_door(domain, vif, packet))
        return ()

    def from_door(self, domain: str, came_by: str, packet: Packet) -> Iterator[Hop]:
        """Yield what each domain does, from an interface of one of them on."""
        for _ in range(_HOPS):
            hooks = self._hooks(domain, packet.version)
            try:
                left = Crossing(hooks, came_by, packet).run()
            except OverrunError as error:
                yield Hop(domain, packet, came_by, "unsure", reason=str(error))
                return
            yield _hop(domain, packet, came_by, left)
            onward = self._onward(domain, left.out)
            if left.packet is None or onward is None:
                return
            domain, came_by = onward
            packet = left.packet

    def _onward(self, domain: str, out: str | None) -> tuple[str, str] | None:
        place = self.world.places[domain]
        if out is None or out in (place.carriers or ()):
            return None
        other = place.uplinks.get(out)
        if other is None:
            return None
        doors = (door for door in self.world.doors(domain) if door[0] == other)
        return next(doors, None)

    def _hooks(self, domain: str, version: int) -> Hooks:
        key = (domain, version)
        if key not in self.known:
            net = self.world.places[domain].net
            common = Common(Space(()), {}, domain)
            machine = Machine(net.bytecode, net.routing, version, common)
            self.known[key] = Hooks(net, version, common, machine)
        return self.known[key]


def _hop(domain: str, packet: Packet, came_by: str, left: Left) -> Hop:
    return Hop(
        domain,
        packet,
        came_by,
        "unsure" if left.doubts else left.verdict,
        left.rule,
        left.chain,
        left.out,
        left.seen,
        "; ".join(left.doubts) or left.reason,
    )

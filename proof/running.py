# SPDX-License-Identifier: GPL-2.0-or-later
"""What runs, held against what may: flows are read, not reasoned about."""

from collections.abc import Iterator

from proof.claims import NothingOld, Result, Status
from proof.fields import ESTABLISHED
from proof.flows import Flow, accepts
from proof.world import Packet, World
from rules.ground import Ground
from rules.model import Action

OLD = "a flow that runs, opened under other rules: its answers would pass"
MEANWHILE = "flows are those that ran when they were looked at"
NOTHING = Ground((), Action.DROP)  # of an IP version that the client has not
TYPE = 8  # bits of the first word of ICMP below its type


def nothing_old(world: World, claim: NothingOld, version: int) -> Result:
    """Return whether every flow of the client is one that its list accepts.

    An older one is possible, not refuted: its packets are judged by the rules,
    only what answers them is not.
    """
    doors = tuple(world.doors(claim.client))
    if not doors:
        reason = f"no domain of that name is connected: {claim.client}"
        return Result(claim, version, Status.UNKNOWN, notes=(reason,))
    generations = {d: world.places[d].net.bytecode.generation for d, _ in doors}
    ground = claim.lists.get(version, NOTHING)
    for domain, vif in doors:
        for flow in _of(world, domain, vif, version):
            if any(flow.target in network for network in claim.apart):
                continue
            if not accepts(ground, flow):
                packet = _packet(flow)
                return Result(
                    *(claim, version, Status.POSSIBLE, packet, domain, vif),
                    notes=(OLD,),
                    generations=generations,
                )
    notes = (MEANWHILE,)
    return Result(claim, version, Status.PROVED, notes=notes, generations=generations)


def _of(world: World, domain: str, vif: str, version: int) -> Iterator[Flow]:
    place = world.places[domain]
    mine = {a for a in place.clients[vif].addresses if a.version == version}
    return (flow for flow in place.net.flows if flow.source in mine)


def _packet(flow: Flow) -> Packet:
    first = 0 if flow.icmp_type is None else flow.icmp_type << TYPE
    second = flow.port or 0
    ends = (flow.source, flow.target, flow.protocol)
    return Packet(*ends, first, second, state=ESTABLISHED)

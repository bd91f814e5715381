# SPDX-License-Identifier: GPL-2.0-or-later
"""What `walk` says of a packet is what the kernel's own trace says of it.

The trace (``nft monitor trace``) names every rule that a packet matches at every
hook.  Both must name the same ones in the same order, for thousands of packets,
with our rules whole and with random changes in them.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest

from proof.bytecode import Place
from proof.walk import Walker
from proof.world import Hop, Packet
from tests.kernel.proof_lab import (
    CLIENTS,
    OWN,
    SERVERS,
    UPLINKS,
    VIFS,
    Lab,
    domain,
)
from tests.kernel.test_proof_mutations import anew
from tests.kernel.trace_events import Tracer, deciding

pytestmark = pytest.mark.kernel

ROUNDS, PACKETS = 10, 120
FLAGS = "transport header byte 13"
TRACING = """
add table inet traced
add chain inet traced early { type filter hook prerouting priority -500; }
add rule inet traced early meta nftrace set 1
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    with domain() as found:
        found.apply(TRACING)
        yield found


def packet(dice: Random, version: int, port: int) -> tuple[str, Packet]:
    place = 0 if version == 4 else 1
    into = dice.choice([*VIFS, *VIFS, *UPLINKS])
    known = [both[place] for both in CLIENTS.values()]
    own = [both[place] for both in OWN.values()]
    source = dice.choice([*known, *SERVERS[version]])
    if into in CLIENTS and dice.random() < 0.8:
        source = CLIENTS[into][place]
    target = dice.choice([*known, *own, *SERVERS[version], *SERVERS[version]])
    echo = (1, 8 << 8) if version == 4 else (58, 128 << 8)
    kinds = [(6, port), (6, port), (17, port), (17, port), echo]
    proto, first = dice.choice(kinds)
    there = dice.choice([22, 53, 80, 443])
    # A reset of nothing is invalid; an acknowledgement is taken for a flow.
    flags = dice.choice([2, 2, 2, 4])
    if source == target:
        return packet(dice, version, port)
    told = {FLAGS: flags}
    if proto in {1, 58}:  # the identifier makes it a flow of its own
        told = {f"transport header byte {n}": port >> 8 * (5 - n) & 255 for n in (4, 5)}
    return into, Packet(source, target, proto, first, there, fields=told)


def as_tracked(sent: Packet) -> Packet:
    """Return the packet with what conntrack makes of it."""
    reset = sent.protocol == 6 and sent.fields[FLAGS] == 4
    return replace(sent, state=5 if reset else 0)


def verdicts_of(hop: Hop) -> list[tuple[Place, int]]:
    """Return the rules of a hop but those of this test."""
    rules = [(seen.chain, seen.handle) for seen in hop.rules]
    return [(chain, handle) for chain, handle in rules if chain.table != "traced"]


@pytest.mark.parametrize("version", [4, 6])
def test_the_rules_on_the_way_are_those_of_the_trace(version: int, lab: Lab) -> None:
    dice = Random(f"trace {version}")
    seen: Counter[str] = Counter()
    port = 1024
    with Tracer() as tracer:
        for round_ in range(ROUNDS):
            with anew(lab, dice, version) as what:
                walker = Walker(lab.world())
                for _ in range(PACKETS):
                    port += 1
                    into, sent = packet(dice, version, port)
                    tracer.rules()
                    out = lab.through(into, sent)
                    matched = [m for m in tracer.rules() if m.chain.table != "traced"]
                    tracked = as_tracked(sent)
                    (hop,) = walker.from_door("fw", into, tracked)
                    seen[hop.verdict] += 1
                    if hop.verdict == "unsure":
                        continue
                    told = deciding(matched)
                    said = verdicts_of(hop)
                    assert told == said, (what, round_, into, tracked, hop)
                    assert (out is not None) is (hop.verdict == "sent"), (what, hop)
                    seen["agreed"] += 1
    assert seen["agreed"] > 1000
    assert min(seen[v] for v in ("sent", "dropped", "rejected")) > 20

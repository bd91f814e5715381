# SPDX-License-Identifier: GPL-2.0-or-later
"""Through all hooks of a domain, the proof, the walk and the kernel agree.

Random programs with chains at every hook, marks, translation, routing rules and
routes; a packet comes out of the device that the walk says or of none, and the
diagram of all packets says the same of it.  ``FUZZ`` and ``FUZZ_SEED`` in the
environment are those of `test_proof_machine_fuzz`.
"""

import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from proof import fields
from proof.bytecode import Family
from proof.explore import possible_at
from proof.hooks import Stop
from proof.realm import Door, Realm
from proof.space import Space
from proof.walk import Walker
from proof.way_out import Sent
from proof.wire import point
from proof.world import Packet, World
from tests.kernel import hook_programs as programs
from tests.kernel.proof_lab import Lab, ip, lab

pytestmark = pytest.mark.kernel

TIMES = int(os.environ.get("FUZZ", "1"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
BATCHES, PROGRAMS, PACKETS = 6 * TIMES, 20, 60
WAYS = (
    (4, "10.9.0.0/16 dev vif5.0 metric 90"),
    (4, "default dev eth0 metric 90"),
    (6, "fd01::/64 dev vif5.0 metric 90"),
    (6, "default dev eth0 metric 90"),
)


@pytest.fixture
def empty() -> Iterator[Lab]:
    with lab() as found:
        for version, line in WAYS:
            ip(f"route add {line}", version=version)
        yield found


@contextmanager
def loaded(found: Lab, dice: Random, version: int) -> Iterator[World]:
    """Load a random program, routes and settings; take them away afterwards."""
    first, *others = programs.program(dice, version)
    found.apply(first)
    for line in others:
        found.nft.cmd(line)
    undo = []
    for line, back in programs.routes(dice, version):
        tool = ["ip", f"-{version}", *line.split()]
        if subprocess.run(tool, check=False, capture_output=True).returncode == 0:
            undo.append(back)
    strict = Path("/proc/sys/net/ipv4/conf/eth0/rp_filter")
    strict.write_text(dice.choice("0012"))
    world = found.world()
    try:
        yield world
    finally:
        for line in reversed(undo):
            ip(line, version=version)
        for table in world.places["fw"].net.bytecode.tables:
            family = Family(table.family).name.lower()
            found.apply(f"delete table {family} {table.name}")


def said(realm: Realm, into: str, packet: Packet) -> set[str]:
    """Return what the diagrams say of a packet: devices, and "" for none."""
    found: set[str] = set()
    for ct in (packet.state, fields.UNTRACKED):
        node = realm.arrive(Door("fw", into, ct))
        for value in possible_at(realm.space, node, known(realm, packet)):
            match value:
                case Sent(oif):
                    found.add(realm.name("fw", oif))
                case Stop():
                    found.add("")
    return found if found == {""} else found - {""}


def known(realm: Realm, packet: Packet) -> dict[str, int]:
    """Return the fields of a packet, those of fragments too; doubts stay open."""
    return {**point(packet), fields.FRAGMENTS: 1} if realm.version else {}


@pytest.mark.parametrize("batch", range(BATCHES))
def test_all_hooks_together_do_what_is_said(batch: int, empty: Lab) -> None:
    seen: Counter[str] = Counter()
    port = 1024
    for number in range(PROGRAMS):
        seed = SEED + batch * PROGRAMS + number
        dice = Random(f"hooks {seed}")
        version = dice.choice([4, 6])
        with loaded(empty, dice, version) as world:
            walker = Walker(world)
            realm = Realm(world, version, Space(()))
            for _ in range(PACKETS):
                port += 1
                into, packet = programs.packet(dice, version, port)
                out = empty.through(into, packet)
                (hop,) = walker.from_door("fw", into, packet)
                says = said(realm, into, packet)
                what = f"seed {seed}", into, packet, out, hop, says
                assert (out or "") in says, what
                seen["open"] += len(says) > 1
                if hop.verdict == "unsure":
                    seen["unsure"] += 1
                    continue
                assert out == hop.out, what
                seen["out" if out else "not"] += 1
    assert seen["out"] > PACKETS
    assert seen["not"] > PACKETS
    assert seen["unsure"] + seen["open"] < seen["out"] / 4, seen

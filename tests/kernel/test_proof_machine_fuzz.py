# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine's verdict for a packet is what the kernel does with it.

Random programs and what our compiler makes of random lists are loaded, read
back as bytecode, and met with packets from the edges of their rules.  ``FUZZ``
in the environment says how many times longer than usual it goes on, and
``FUZZ_SEED`` where it starts.
"""

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

import pytest

import proof.machine
from proof import fields, loads, lookups, matches, snapshot
from proof.bytecode import Family as Table
from proof.bytecode import Place, Verdict
from proof.diagram import Node
from proof.explore import value_at
from proof.machine import Machine
from proof.netlink import Attributes
from proof.outcome import Call, End, Env, Outcome, Step
from proof.rule import RuleRun
from proof.snapshot import Snapshot
from proof.statements import STEPS
from rules.decide import Packet
from rules.model import Family
from rules.objects import Chain, Key, Ruleset, chain_name
from rules.transaction import difference
from tests.kernel import test_compiled_rules_equal_their_meaning as lists
from tests.kernel.random_programs import (
    SENTINEL,
    TARGETS,
    Words,
    packet,
    program,
)
from tests.kernel.raw_packets import UDP, Raw, number_of
from tests.kernel.tunnels import Tunnels, tunnels

pytestmark = pytest.mark.kernel

TIMES = int(os.environ.get("FUZZ", "1"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
PROGRAMS, PACKETS = 20, 500
"""Programs of a batch, and packets for each."""
BATCHES = 8 * TIMES
UNMARKED = Env(mark=(0, 0, 0, 0))
EXTRA_LINKS = """
route add fd00::/8 dev in0
link set in0 group 2
link set out0 group 1
"""


@dataclass(slots=True)
class Router:
    """The tunnels, without the rules they come with; ``sent`` counts packets."""

    tunnels: Tunnels
    sent: int = 0
    loaded: list[str] = field(default_factory=list)

    def load(self, dice: Random, version: int) -> Snapshot:
        """Load a random program, and read it back."""
        first, *others = program(dice, version)
        self.tunnels.apply(first)
        for line in others:  # some overlap with others: the kernel refuses them
            self.tunnels.nft.cmd(line)
        return snapshot.here()

    def unload(self, code: Snapshot) -> None:
        for place in code.bytecode.tables:
            name = Table(place.family).name.lower()
            self.tunnels.apply(f"delete table {name} {place.name}")

    def accepted(self, packets: Sequence[Raw], sentinel: Raw) -> list[bool]:
        """Send each packet once; return whether it came out of the other side."""
        start = self.sent + 1
        for number, raw in enumerate([*packets, sentinel], start):
            os.write(self.tunnels.inner, raw.packed(number))
        self.sent = start + len(packets)
        found = set(self._out(self.tunnels.outer))
        assert self.sent in found, "the last packet did not come out"
        list(self._out(self.tunnels.inner))
        return [number in found for number in range(start, self.sent)]

    def _out(self, device: int) -> Iterator[int | None]:
        with suppress(BlockingIOError):
            while True:
                yield number_of(os.read(device, 4096))


@pytest.fixture
def router() -> Iterator[Router]:
    with tunnels() as found:
        subprocess.run(["ip", "-batch", "-"], input=EXTRA_LINKS, text=True, check=True)
        found.apply("delete table ip qubes\ndelete table ip6 qubes")
        yield Router(found)


@dataclass(slots=True)
class Judge:
    """What the machine says of packets through both base chains."""

    machine: Machine
    family: int
    memo: dict[tuple[str, Env], Node] = field(default_factory=dict)

    def end(self, point: dict[str, int]) -> End:
        found = Outcome(End.ACCEPT, UNMARKED)
        for name in ("c0", "c9"):
            key = (name, found.env)
            if key not in self.memo:
                place = Place(self.family, "fuzz", name)
                self.memo[key] = self.machine.hooked(place, found.env)
            outcome = value_at(self.machine.space, self.memo[key], point)
            assert isinstance(outcome, Outcome)
            found = outcome
            if found.end is not End.ACCEPT:
                break
        return found.end


@dataclass(frozen=True, slots=True)
class Comparison:
    """The packets that the kernel treats otherwise than the machine says."""

    wrong: list[Raw]
    verdicts: set[bool]
    doubts: set[str]


def compared(router: Router, seed: int) -> Comparison:
    dice = Random(seed)
    version = dice.choice([4, 6])
    w = Words(version)
    seen = router.load(dice, version)
    packets = [packet(dice, version) for _ in range(PACKETS)]
    last = Raw(
        type(w.address(0))(SENTINEL[version]),
        w.address(w.centre(dice, TARGETS)),
        UDP,
    )
    was = router.accepted(packets, last)
    machine = Machine(seen.bytecode, seen.routing, version)
    judge = Judge(machine, next(iter(seen.bytecode.tables)).family)
    index = {link.name: link.index for link in seen.routing.links}
    points = [raw.point(index["in0"], index["out0"]) for raw in packets]
    says = [judge.end(point) is End.ACCEPT for point in points]
    router.unload(seen)
    wrong = [raw for raw, a, b in zip(packets, was, says, strict=True) if a is not b]
    return Comparison(wrong, set(was), set(machine.doubts.values()))


@pytest.mark.parametrize("batch", range(BATCHES))
def test_random_programs_do_what_the_machine_says(batch: int, router: Router) -> None:
    seen: set[bool] = set()
    for number in range(PROGRAMS):
        seed = SEED + batch * PROGRAMS + number
        found = compared(router, seed)
        assert found.wrong == [], f"seed {seed}"
        assert found.doubts == {"later fragments"}, f"seed {seed}"
        seen |= found.verdicts
    assert seen == {True, False}


KINDS = {"a short list": 6, "a long list": 60, "a very long list": 400}
LISTS = 7 * TIMES
PER_LIST = 500


@pytest.fixture
def firewall() -> Iterator[Tunnels]:
    """The tunnels with the rules they come with, and a chain for each client."""
    with tunnels() as found:
        for of, table in lists.TABLES.items():
            entry = Key(table, chain_name(lists.CLIENTS[of]))
            found.apply(difference({}, {entry: Chain(())}))
            dispatch = f"forward ct direction original goto {entry.name}"
            found.apply(f"add rule {table} {dispatch}")
        yield found


def point_of(sent: Packet) -> dict[str, int]:
    """Return the fields of a flow's first packet, as the client sent it."""
    words = (sent.icmp_type or 0) << 8, sent.port or 0
    return {
        fields.CT: fields.NEW,
        fields.ORIGINAL_DST: int(sent.dst),
        fields.PROTO: sent.proto,
        fields.SPORT: words[0],
        fields.DPORT: words[1],
        fields.L4: fields.WHOLE,
        fields.TRANSPORT: 16,
    }


@pytest.mark.parametrize("of", Family, ids=lambda of: of.name)
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_lists_do_what_the_machine_says(
    kind: str, of: Family, firewall: Tunnels
) -> None:
    dice = Random(f"{kind} {of} {SEED}")
    loaded: Ruleset | None = None
    seen: set[End] = set()
    table = lists.TABLES[of]
    place = Place({"ip": 2, "ip6": 10}[table.split()[0]], "qubes", "forward")
    for _ in range(LISTS):
        policy = lists.random_policy(dice, of, KINDS[kind])
        objects = lists.compiled(policy, of)
        packets = [
            lists.random_packet(dice, dice.choice(policy.rules), of)
            for _ in range(PER_LIST)
        ]
        firewall.apply(difference(loaded, objects))
        found = snapshot.here()
        machine = Machine(found.bytecode, found.routing, 4 if of.value == 32 else 6)
        result = machine.hooked(place)

        was = firewall.accepted(table, packets)

        ends = [end_of(machine, result, point_of(sent)) for sent in packets]
        says = [end is End.ACCEPT for end in ends]
        wrong = [sent for sent, a, b in zip(packets, was, says, strict=True) if a != b]
        assert wrong == [], policy
        seen.update(ends)
        loaded = objects
    assert seen == {End.ACCEPT, End.DROP}


def end_of(machine: Machine, result: Node, point: dict[str, int]) -> End:
    outcome = value_at(machine.space, result, point)
    assert isinstance(outcome, Outcome)
    return outcome.end


def goto_comes_back(patch: pytest.MonkeyPatch) -> None:
    original = RuleRun.step_of

    def step_of(run: RuleRun, verdict: Verdict) -> Step | None:
        match original(run, verdict):
            case Call(chain, _, env):
                return Call(chain, goto=False, env=env)
            case step:
                return step

    patch.setattr(RuleRun, "step_of", step_of)


def marks_are_not_kept(patch: pytest.MonkeyPatch) -> None:
    original = STEPS["meta"]

    def meta(run: RuleRun, values: Attributes) -> None:
        if 3 not in values:
            original(run, values)

    patch.setattr(proof.machine, "STEPS", {**STEPS, "meta": meta})


BUGS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "goto comes back": goto_comes_back,
    "marks are not kept": marks_are_not_kept,
    "not equal is equal": lambda patch: patch.setattr(matches, "_NOT_EQUAL", -1),
    "ranges of concatenations are points": lambda patch: patch.setattr(
        lookups, "_components", lambda _: ()
    ),
    "intervals have no end": lambda patch: patch.setattr(lookups, "INTERVAL_END", 0),
    "a fragment has no protocol": lambda patch: patch.setattr(
        loads, "LATER_FRAGMENT", fields.WHOLE
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_mistake_in_the_machine_is_found(
    bug: str, router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    BUGS[bug](monkeypatch)

    assert any(compared(router, seed).wrong for seed in range(3 * PROGRAMS))

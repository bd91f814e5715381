# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever the kernel's answers are turned into, there is an answer, and no false one.

All answers about a whole domain are recorded, and given again with a few bits turned,
or cut short, or with a message gone or told twice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from random import Random

import pytest

from proof import snapshot
from proof.claims import Claim, Status, implied
from proof.netlink import (
    NETFILTER,
    ROUTE,
    Kernel,
    Message,
    Netlink,
    Request,
    SnapshotError,
)
from proof.snapshot import Snapshot, Sources
from proof.verify import Prover
from proof.walk import Walker
from proof.world import World
from tests.kernel.proof_lab import APART, OWN, Lab, domain, lists
from tests.kernel.test_proof_mutations import PEERS, battery

pytestmark = pytest.mark.kernel

ROUNDS, ENOUGH = 300, 3  # rounds at least, and what must have been another world


@dataclass(slots=True)
class Tape:
    """A kernel that says again what another one has said."""

    kernel: Kernel
    said: dict[Request, list[Message]] = field(default_factory=dict)

    def ask(self, request: Request) -> Message:
        return next(iter(self.dump(request)))

    def dump(self, request: Request) -> Sequence[Message]:
        if request not in self.said:
            once = request.what == "nf_tables generation"
            asked = [self.kernel.ask(request)] if once else self.kernel.dump(request)
            self.said[request] = list(asked)
        return self.said[request]


@pytest.fixture
def lab() -> Iterator[Lab]:
    with domain() as found:
        yield found


def broken(dice: Random, tape: Tape) -> Tape:
    """Return a tape on which one answer is another one."""
    said = {request: list(answers) for request, answers in tape.said.items()}
    able = [r for r, a in said.items() if a and "generation" not in r.what]
    answers = said[dice.choice(able)]
    at = dice.randrange(len(answers))
    one = answers[at]
    match dice.randrange(8):
        case 0:
            del answers[at]
        case 1:
            answers.insert(at, dice.choice(answers))
        case 2:
            answers[at] = replace(one, body=one.body[: dice.randrange(len(one.body))])
        case _:
            body = bytearray(one.body)
            for _ in range(dice.choice([1, 1, 1, 2, 8])):
                body[dice.randrange(len(body))] ^= 1 << dice.randrange(8)
            answers[at] = replace(one, body=bytes(body))
    return Tape(tape.kernel, said)


def fares(world: World, version: int) -> list[list[bool]]:
    """Return what goes on, of all that is not for the domain itself.

    Without the rule for table local that would go on too, where a list accepts it, and
    no claim is against that.
    """
    walker = Walker(world)
    elsewhere = (x for x in battery(version) if x[1].destination not in OWN["eth0"])
    ways = (walker.from_door("fw", *each) for each in elsewhere)
    return [[hop.verdict == "sent" for hop in way] for way in ways]


def test_no_answer_of_the_kernel_is_taken_for_a_proof_it_is_not(lab: Lab) -> None:
    dice = Random("dumps")
    seen = {"unread": 0, "other": 0, "found": 0}
    with Netlink(NETFILTER) as netfilter, Netlink(ROUTE) as route:
        tapes = Tape(netfilter), Tape(route)
        usual = with_net(lab, snapshot.take(Sources(*tapes, None)))
        before = {v: fares(usual, v) for v in (4, 6)}
        assert proved(usual, 4)
        assert proved(usual, 6)
        for number in count():
            if number >= ROUNDS and seen["other"] >= ENOUGH:
                break
            version = 4 if number % 2 else 6
            which = dice.randrange(2)
            heard = [*tapes]
            heard[which] = broken(dice, tapes[which])
            try:
                net = snapshot.take(Sources(*heard, None))
            except SnapshotError:
                seen["unread"] += 1
                continue
            world = with_net(lab, net)
            if fares(world, version) != before[version]:
                seen["other"] += 1
                seen["found"] += not proved(world, version)
            elif number % 10 == 0:
                proved(
                    world, version
                )  # whatever it comes to, it does come to something
    assert seen["unread"] >= 10
    assert seen["found"] == seen["other"]


def with_net(lab: Lab, net: Snapshot) -> World:
    place = lab.world().places["fw"]
    return World({"fw": replace(place, net=net)})


def proved(world: World, version: int) -> bool:
    claims: list[Claim] = list(implied(world, lists(), APART, never=PEERS))
    found = list(Prover().prove(world, claims, (version,)))
    return all(result.status is Status.PROVED for result in found)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Claims about domains, proved for every packet or answered with one."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from proof.about import about
from proof.arrival import ANY_TABLE
from proof.cases import Case, Cases, UnconnectedError
from proof.claims import (
    Alone,
    Asserted,
    Claim,
    Expect,
    NothingOld,
    Result,
    Status,
    concerns,
)
from proof.diagram import Budget, Node, OverrunError
from proof.explore import pick, project
from proof.fields import IPV4, IPV6
from proof.machine import DOUBTS
from proof.opened import opened
from proof.packets import doubts_of, liked, packet_of, sendable
from proof.realm import Door, Realm
from proof.running import nothing_old
from proof.space import Space
from proof.walk import Walker
from proof.world import World

ASSUMED = (
    "conntrack puts fragments together, of which rules before it see each",
    "packet sockets and programs of BPF of the domains themselves are not seen",
)
Looked = Mapping[tuple[bool, Door], Node]
LATER = "a flow that is opened as it should be goes on so"
EARLIER = "no flow runs that was opened while the rules were others"


@dataclass(slots=True)
class Prover:
    """Proves claims; what it has found out about a world it knows the next time."""

    budget: Budget = field(default_factory=Budget)
    realms: dict[int, Realm] = field(default_factory=dict)
    answers: dict[tuple[int, Claim], tuple[Result, Looked]] = field(
        default_factory=dict
    )

    def prove(
        self,
        world: World,
        claims: Iterable[Claim],
        versions: Iterable[int] = (IPV4, IPV6),
    ) -> Iterator[Result]:
        """Yield an answer for each claim and IP version."""
        walker = Walker(world)
        asked = list(claims)
        for version in versions:
            realm = self._realm(world, version)
            for claim in asked:
                if concerns(claim, version):
                    yield self._answer(realm, walker, claim)

    def _realm(self, world: World, version: int) -> Realm:
        known = self.realms.get(version)
        if known is None or self._full(known):
            known = Realm(world, version, Space((), self.budget))
            self.answers = {}
        elif known.world is not world:
            known.space.restart()
            known = known.after(world)
        self.realms[version] = known
        return known

    def _full(self, realm: Realm) -> bool:
        """Return whether to forget all, before it comes to more than the budget."""
        much = realm.space.size > self.budget.nodes // 2
        return much or len(realm.doubts) > DOUBTS // 2

    def _remembered(self, realm: Realm, claim: Claim) -> Result | None:
        """Return what was proved before, if all that it was about is the same."""
        known = self.answers.get((realm.version, claim))
        if known is None:
            return None
        result, looked = known
        if not result.generations.keys() <= realm.steady or not realm.still(looked):
            return None
        places = realm.world.places
        now = {n: places[n].net.bytecode.generation for n in result.generations}
        return replace(result, generations=now)

    def _answer(self, realm: Realm, walker: Walker, claim: Claim) -> Result:
        if isinstance(claim, Alone):
            return _alone(realm, claim)
        if isinstance(claim, NothingOld):
            return nothing_old(realm.world, claim, realm.version)
        try:
            realm.space.restart()
            realm.looked = {}
            found = self._remembered(realm, claim)
            if found is None:
                realm.looked = {}
                found = _judged(realm, walker, claim, about(realm, claim))
        except (OverrunError, UnconnectedError) as error:
            return Result(claim, realm.version, Status.UNKNOWN, notes=(str(error),))
        if found.status is Status.PROVED and realm.looked:
            key = (realm.version, claim)
            self.answers[key] = found, dict(realm.looked)
        return found


def _judged(realm: Realm, walker: Walker, claim: Claim, cases: Cases) -> Result:
    places = realm.world.places
    generations = {name: places[name].net.bytecode.generation for name in cases.domains}
    gaps = [f"{name}: {gap}" for name in cases.domains for gap in places[name].net.gaps]
    empty = Result(
        claim, realm.version, Status.UNKNOWN, notes=tuple(gaps), generations=generations
    )
    if gaps:
        return empty
    found = _Found()
    for case in cases.all:
        trouble = _case(realm, walker, claim, case)
        if trouble is not None:
            trouble = replace(trouble, generations=generations)
            if trouble.status is not Status.POSSIBLE:
                return trouble
            found.add(trouble)
        elif found.witness is None:
            found.witness = _witness(realm, case)
    if found.possible is not None:
        return found.possible
    assumed = (*ASSUMED, *cases.assumed, *found.assumed)
    return _proved(realm.world, replace(empty, notes=assumed), found.witness)


@dataclass(slots=True)
class _Found:
    """What the cases of a claim have come to so far."""

    possible: Result | None = None
    witness: Result | None = None
    assumed: tuple[str, ...] = ()

    def add(self, trouble: Result) -> None:
        """Take what may be wrong in a case, were it for flows that cannot be opened."""
        if trouble.notes == (EARLIER,):
            self.assumed = (EARLIER,)
        elif self.possible is None:
            self.possible = trouble


def _proved(world: World, empty: Result, witness: Result | None) -> Result:
    if witness is not None:
        return replace(
            witness,
            claim=empty.claim,
            status=Status.PROVED,
            notes=empty.notes,
            generations=empty.generations,
        )
    claim, notes = empty.claim, empty.notes
    if isinstance(claim, Asserted):
        own = {address.version for address in world.addresses(claim.client)}
        if claim.expect is Expect.REACH or empty.version in own:
            return replace(empty, notes=("it is about no packet that can be",))
        # It holds for what anybody else would send in its place.
        notes = (*notes, f"{claim.client} has no IPv{empty.version} address")
    return replace(empty, status=Status.PROVED, notes=notes)


def _witness(realm: Realm, case: Case) -> Result | None:
    """Return a packet that a claim is about, which is as it should be."""
    space, door = realm.space, case.door
    about = realm.within_limits(space.both(case.scope, case.witness))
    sure = project(space, about, realm.doubts, space.both)
    point = pick(space, sure, liked=liked(realm.version, door.ct, case.client))
    if point is None:
        return None
    packet = packet_of(realm.version, door.ct, point)
    return Result(
        Alone(""), realm.version, Status.PROVED, packet, door.domain, door.interface
    )


def _agreed(found: Result, case: Case) -> Result:
    """Return the result if the packet's own way agrees with it."""
    first = found.hops[0].verdict if found.hops else "unsure"
    passing = {"sent", "delivered"} if isinstance(found.claim, Asserted) else {"sent"}
    if case.passes is None or first == "unsure" or case.passes is (first in passing):
        return found
    reason = f"two ways of reasoning disagree: {first}, {found.hops[0].reason}"
    return replace(found, status=Status.UNKNOWN, notes=(reason,))


def _alone(realm: Realm, claim: Alone) -> Result:
    world = realm.world
    empty = Result(claim, realm.version, Status.UNKNOWN)
    if any(True for _ in world.doors(claim.domain)):
        return replace(empty, status=Status.REFUTED, notes=("it is connected",))
    if claim.domain not in world.others:
        return replace(empty, notes=(f"{claim.domain}: there is no snapshot of it",))
    net = world.others[claim.domain]
    up = [link.name for link in net.routing.links if link.name != "lo" and link.up]
    if up:
        notes = tuple(f"{name} is up" for name in up)
        return replace(empty, status=Status.POSSIBLE, notes=notes)
    generations = {claim.domain: net.bytecode.generation}
    notes = ("it has no interface that is up but lo",)
    return replace(empty, status=Status.PROVED, notes=notes, generations=generations)


def _case(realm: Realm, walker: Walker, claim: Claim, case: Case) -> Result | None:
    """Return what is wrong in a case, None if nothing is."""
    space, door = realm.space, case.door
    wrong = space.both(case.scope, case.wrong)
    if wrong is space.false:
        return None
    wanted = liked(realm.version, door.ct, case.client)
    # A routing table that lets it happen is an example, not a doubt.
    free = {n for n, text in realm.doubts.items() if ANY_TABLE in text}
    # So is a client that keeps within its limits: nothing is refused for that.
    within = realm.within_limits(wrong)
    somehow = project(space, within, free, space.either)
    sure = project(space, somehow, realm.doubts, space.both)
    point = pick(space, space.both(sure, sendable(space, door.ct)), liked=wanted)
    found = Result(
        claim, realm.version, Status.REFUTED, None, door.domain, door.interface
    )
    if point is not None and not case.later:
        packet = packet_of(realm.version, door.ct, point)
        entry = door.domain, door.interface
        hops = tuple(walker.from_door(*entry, packet)) if door.interface else ()
        return _agreed(replace(found, packet=packet, hops=hops), case)
    left = wrong if within is space.false else within
    known = opened(realm, case, left) if case.later else left
    may = project(space, known, realm.doubts, space.either)
    point = pick(space, may, liked=wanted)
    if point is None:
        unlike = replace(found, status=Status.POSSIBLE, notes=(EARLIER,))
        return unlike if case.later else None
    packet = packet_of(realm.version, door.ct, point)
    notes = doubts_of(realm, left, point) or ((LATER,) if case.later else ())
    return replace(found, status=Status.POSSIBLE, packet=packet, notes=notes)

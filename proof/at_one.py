# SPDX-License-Identifier: GPL-2.0-or-later
"""The cases of claims about one domain: what its kernel lets through, and what not."""

from collections.abc import Hashable, Iterator

from proof.cases import At, Case, as_usual, others, own, sent_where
from proof.claims import (
    Apart,
    NoLessThanList,
    NoMoreThanList,
    NoSpoof,
    NotOpened,
    OwnOf,
)
from proof.departure import Departure
from proof.fields import DST, NEW, RELATED, SOCKET, UID
from proof.forwarding import spans
from proof.opened import errors
from proof.realm import Door, Fate, Realm, Where
from proof.relabel import relabel
from proof.scope import special, whole
from proof.tracked import FORWARDS, NO_FLOW, STATES
from proof.way_out import Sent
from rules.ground import Ground
from rules.model import Action

OfOne = NoMoreThanList | NoLessThanList | NoSpoof | NotOpened | Apart
_NOTHING = Ground((), Action.DROP)


def of_one(realm: Realm, at: At, claim: OfOne) -> Iterator[Case]:
    """Return the cases of a claim about a client at one of its doors."""
    match claim:
        case NoMoreThanList():
            return _no_more(realm, at, claim)
        case NoLessThanList():
            return _no_less(realm, at, claim)
        case NoSpoof():
            return _no_spoof(realm, at)
        case NotOpened():
            return _not_opened(realm, at)
        case Apart(_, allowed):
            return _apart(realm, at, allowed)


def _no_more(realm: Realm, at: At, claim: NoMoreThanList) -> Iterator[Case]:
    space = realm.space
    ground = claim.lists.get(realm.version, _NOTHING)
    barred = [p for p in claim.never if p.version == realm.version]
    listed = space.minus(
        realm.accepts(ground),
        space.within(space.levels[DST], *spans(barred)),
    )
    for ct in (*FORWARDS, *NO_FLOW):
        sent = realm.sent(at.door(ct))
        allowed = listed if ct in FORWARDS else space.false
        if ct == RELATED:  # of what is accepted
            allowed = space.either(listed, errors(realm, listed))
        wrong = space.either(space.minus(sent, allowed), realm.aside(at.door(ct)))
        scope = whole(space, realm.version, ct)
        yield Case(at.door(ct), scope, wrong, space.both(sent, allowed), at.client)


def _no_less(realm: Realm, at: At, claim: NoLessThanList) -> Iterator[Case]:
    space, place = realm.space, realm.world.places[at.domain]
    ground = claim.lists.get(realm.version, _NOTHING)
    there = {*place.uplinks, *(place.carriers or ())}
    door = at.door(NEW)

    def served(value: Hashable) -> bool:
        match value:
            case Fate(Where.CARRIED):
                return True
            case _:
                return isinstance(value, Sent) and (
                    realm.name(at.domain, value.oif) in there
                )

    node = realm.arrive(door) if place.carriers is None else realm.fate(door)
    good = relabel(space, realm.within_limits(node), served)
    apart = [*claim.apart, *special(realm, at.domain)]
    elsewhere = [p for p in apart if p.version == realm.version]
    scope = space.both(as_usual(realm, at), realm.accepts(ground))
    scope = space.minus(scope, space.within(space.levels[DST], *spans(elsewhere)))
    wrong = space.minus(space.true, good)
    yield Case(door, scope, wrong, good, at.client, passes=False)


def _no_spoof(realm: Realm, at: At) -> Iterator[Case]:
    space, itself = realm.space, own(realm, at.client)
    for ct in STATES:
        scope = whole(space, realm.version, ct)
        sent = realm.sent(at.door(ct))
        wrong = space.minus(sent, itself)
        yield Case(at.door(ct), scope, wrong, space.both(sent, itself), at.client)
    for name in others(realm, at.domain):
        for ct in STATES:
            door = Door(at.domain, name, ct)
            sent = realm.sent(door)
            scope = whole(space, realm.version, ct)
            yield Case(door, scope, space.both(sent, itself), space.false)


def no_transit(realm: Realm, domain: str) -> Iterator[Case]:
    """Yield the cases of a domain between whose uplinks nothing passes."""
    space, outside = realm.space, set(others(realm, domain))
    for name in sorted(outside):
        for ct in STATES:
            door = Door(domain, name, ct)
            scope = whole(space, realm.version, ct)
            wrong = sent_where(
                realm,
                realm.arrive(door),
                lambda sent: realm.name(domain, sent.oif) in outside,
            )
            yield Case(door, scope, wrong, scope)


def _not_opened(realm: Realm, at: At) -> Iterator[Case]:
    space = realm.space
    for name in others(realm, at.domain):
        for ct in (*FORWARDS, *NO_FLOW):
            door = Door(at.domain, name, ct)
            scope = whole(space, realm.version, ct)
            wrong = sent_where(
                realm,
                realm.arrive(door),
                lambda sent: realm.name(at.domain, sent.oif) == at.vif,
            )
            yield Case(door, scope, wrong, scope)


def _apart(realm: Realm, at: At, allowed: frozenset[str]) -> Iterator[Case]:
    space, place = realm.space, realm.world.places[at.domain]
    barred = {
        vif
        for vif, client in place.clients.items()
        if vif != at.vif and client.name not in allowed
    }
    for ct in STATES:
        scope = whole(space, realm.version, ct)
        node = realm.arrive(at.door(ct))
        wrong = sent_where(
            realm, node, lambda sent: realm.name(at.domain, sent.oif) in barred
        )
        witness = space.both(scope, own(realm, at.client))
        yield Case(at.door(ct), scope, wrong, witness, at.client)


def own_of(realm: Realm, claim: OwnOf) -> Iterator[Case]:
    """Yield the cases of what processes of a domain send in the clear."""
    space, domain = realm.space, claim.domain
    place, hooks = realm.world.places[domain], realm.passage(domain).hooks
    clear = [n for n in others(realm, domain) if n not in (place.carriers or ())]
    links = [link for link in place.net.routing.links if link.name in clear]
    for link in links:
        for ct in STATES:
            sent = sent_where(realm, Departure(hooks, link, ct).run(), lambda _: True)
            users = [(user, user) for user in claim.users]
            theirs = space.within(space.levels[UID], *users)
            socket = space.within(space.levels[SOCKET], (1, 1))
            scope = space.both(whole(space, realm.version, ct), socket)
            wrong = space.minus(sent, theirs)
            yield Case(Door(domain, "", ct), scope, wrong, scope, passes=None)

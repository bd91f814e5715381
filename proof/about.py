# SPDX-License-Identifier: GPL-2.0-or-later
"""Which cases a claim has."""

from proof.at_one import no_transit, of_one, own_of
from proof.cases import At, Cases, UnconnectedError
from proof.claims import (
    Alone,
    Apart,
    Asserted,
    Claim,
    Expect,
    NoLessThanList,
    NoMoreThanList,
    NoSpoof,
    NothingOld,
    NotOpened,
    NoTransit,
    OnlyThrough,
    OwnOf,
)
from proof.on_the_way import of_way
from proof.realm import Realm

KERNEL = "what the kernel sends without a socket is no part of it"
LIMITS = "nobody opens flows faster than the limits that the rules have for that"
ALIKE = "conntrack says the same of a packet in every domain on its way"
ANSWERS = "what answers flows that others opened is no part of it"


def about(realm: Realm, claim: Claim) -> Cases:
    """Return the cases of a claim; `UnconnectedError`: it is about nobody."""
    world = realm.world
    match claim:
        case NoTransit(domain):
            if domain not in world.places:
                raise UnconnectedError(f"{domain}: no domain that provides network")
            return Cases(no_transit(realm, domain), (domain,))
        case OwnOf(domain):
            if domain not in world.places:
                raise UnconnectedError(f"{domain}: no domain that provides network")
            return Cases(own_of(realm, claim), (domain,), (KERNEL,))
        case OnlyThrough() | Asserted():
            doors = _doors(realm, claim.client)
            domains = _path(realm, claim.client, _through(claim))
            every = (case for at in doors for case in of_way(realm, at, claim))
            alike = (ALIKE,) if len(domains) > 1 else ()
            return Cases(every, domains, (*_assumed(claim), *alike))
        case Alone():
            raise UnconnectedError(f"{claim.domain}: it has no door")
        case NothingOld():
            raise UnconnectedError(f"{claim.client}: its flows are no packets")
        case NoMoreThanList() | NoLessThanList() | NoSpoof() | NotOpened() | Apart():
            doors = _doors(realm, claim.client)
            domains = tuple(dict.fromkeys(at.domain for at in doors))
            every = (case for at in doors for case in of_one(realm, at, claim))
            return Cases(every, domains, _assumed(claim))


def _assumed(claim: Claim) -> tuple[str, ...]:
    match claim:
        case NoMoreThanList():
            return (ANSWERS,)
        case NoLessThanList() | Asserted(expect=Expect.REACH):
            return (LIMITS,)
        case _:
            return ()


def _through(claim: OnlyThrough | Asserted) -> str | None:
    match claim:
        case OnlyThrough(_, domain):
            return domain
        case Asserted(expect=str(domain)):
            return domain
        case Asserted():
            return None


def _doors(realm: Realm, client: str) -> list[At]:
    places = realm.world.places
    found = [
        At(domain, vif, places[domain].clients[vif])
        for domain, vif in realm.world.doors(client)
    ]
    if not found:
        raise UnconnectedError(f"{client}: no domain of that name is connected")
    return found


def _path(realm: Realm, client: str, through: str | None) -> tuple[str, ...]:
    """Return the domains that a client's packets may come to, in their order."""
    if through is not None and through not in realm.world.places:
        raise UnconnectedError(f"{through}: no domain that provides network")
    found = [domain for domain, _ in realm.world.doors(client)]
    for domain in found:
        uplinks = realm.world.places[domain].uplinks.values()
        known = (u for u in uplinks if u in realm.world.places)
        found += (u for u in known if u is not None and u not in found)
    return tuple(found)

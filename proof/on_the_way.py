# SPDX-License-Identifier: GPL-2.0-or-later
"""The cases of claims about a client's whole way, through several domains."""

from collections.abc import Callable, Hashable, Iterator

from proof.cases import At, Case, as_usual, own
from proof.claims import Asserted, Expect, OnlyThrough
from proof.diagram import Node
from proof.fields import DPORT, DST, IPV4, IPV6, NEW, PROTO, SPORT
from proof.forwarding import spans
from proof.realm import Fate, Realm, Where
from proof.relabel import relabel
from proof.scope import whole
from proof.tracked import FORWARDS, NO_FLOW, STATES
from rules.decide import ICMP, ICMPV6

ECHO = {IPV4: (ICMP, 8), IPV6: (ICMPV6, 128)}
"""The protocol and the type of an echo request (RFC 792, RFC 4443)."""

OfWay = OnlyThrough | Asserted


def of_way(realm: Realm, at: At, claim: OfWay) -> Iterator[Case]:
    """Return the cases of a claim about a client, from one of its doors on."""
    match claim:
        case OnlyThrough(_, domain):
            return _through(realm, at, domain)
        case Asserted():
            return _asserted(realm, at, claim)


def _astray(realm: Realm, domain: str) -> Callable[[Hashable], bool]:
    """Return whether a packet leaves the machine otherwise than by a domain."""
    clear = realm.world.places[domain].carriers is None

    def astray(value: Hashable) -> bool:
        match value:
            case Fate(Where.OUT, passed=passed):
                return not (clear and domain in passed)
            case Fate(Where.CARRIED, carrier, passed=passed):
                return carrier != domain and domain not in passed
            case _:
                return False

    return astray


def _through(realm: Realm, at: At, domain: str) -> Iterator[Case]:
    space = realm.space
    for ct in STATES:
        scope = whole(space, realm.version, ct)
        door = at.door(ct, any_route=True)
        wrong = relabel(space, realm.fate(door), _astray(realm, domain))
        witness = space.both(scope, own(realm, at.client))
        yield Case(door, scope, wrong, witness, at.client, passes=None)


def _asserted(realm: Realm, at: At, claim: Asserted) -> Iterator[Case]:
    space = realm.space
    about = _box(realm, claim)
    if claim.expect is Expect.REACH:
        door = at.door(NEW)
        scope = space.both(about, as_usual(realm, at))
        fate = realm.within_limits(realm.fate(door))
        lost = relabel(space, fate, lambda v: v == Fate(Where.GONE))
        arrived = space.minus(space.true, lost)
        yield Case(door, scope, lost, arrived, at.client, passes=None)
        return
    bad = (
        _astray(realm, claim.expect)
        if isinstance(claim.expect, str)
        else lambda value: value != Fate(Where.GONE)
    )
    for ct in (*FORWARDS, *NO_FLOW):
        scope = space.both(about, whole(space, realm.version, ct))
        wrong = relabel(space, realm.fate(at.door(ct)), bad)
        yield Case(at.door(ct), scope, wrong, own(realm, at.client), at.client)


def _box(realm: Realm, claim: Asserted) -> Node:
    space = realm.space
    found: Node = space.true
    if claim.to:
        mine = [network for network in claim.to if network.version == realm.version]
        found = space.within(space.levels[DST], *spans(mine))
    if claim.protocols is not None:
        numbers = [(number, number) for number in claim.protocols]
        found = space.both(found, space.within(space.levels[PROTO], *numbers))
    if claim.ports is not None:
        ports = (claim.ports.first, claim.ports.last)
        found = space.both(found, space.within(space.levels[DPORT], ports))
    if claim.pings:
        number, kind = ECHO[realm.version]
        icmp = space.within(space.levels[PROTO], (number, number))
        first = (kind << 8, (kind << 8) + 255)  # with every code
        echo = space.within(space.levels[SPORT], first)
        found = space.both(found, space.both(icmp, echo))
    return found

# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a flow can be opened of which a later packet does what it must not.

What a first packet may not do at all no later one does, but of flows from before the
rules.  But a flow that is opened as it should be may go on otherwise: a rule that
looks at the state alone, and another route, are enough.
"""

from dataclasses import replace

from proof.cases import Case
from proof.diagram import Node
from proof.explore import project
from proof.fields import DPORT, DST, ESTABLISHED, IPV4, NEW, PROTO, SPORT, SRC
from proof.hooks import DROPPED
from proof.realm import Realm
from proof.relabel import relabel
from proof.substitute import substitute
from proof.tracked import REPLIES
from proof.way_out import OTHERWISE
from rules.decide import ICMP, ICMPV6

FLOW = (SRC, DST, PROTO, SPORT, DPORT)


def opened(realm: Realm, case: Case, wrong: Node) -> Node:
    """Return those of what is wrong, for later packets, whose flows can be opened.

    Errors about a flow are sent to its target (nf_conntrack_inet_error()).
    """
    space, door = realm.space, case.door
    if door.ct in REPLIES:  # to a client only by those who may open flows to it
        return wrong if case.client is None and door.interface else space.false
    if not door.interface:
        return space.false
    first = realm.arrive(replace(door, ct=NEW))
    found = relabel(space, first, lambda value: value is not DROPPED)
    if door.ct == ESTABLISHED:
        return space.both(_as_now(realm, wrong), of_flows(realm, found, FLOW))
    return space.both(_as_now(realm, wrong), errors(realm, found))


def errors(realm: Realm, flows: Node) -> Node:
    """Return the errors of ICMP that there may be about flows with such packets."""
    space = realm.space
    number = ICMP if realm.version == IPV4 else ICMPV6
    about = space.within(space.levels[PROTO], (number, number))
    return space.both(about, of_flows(realm, flows, (DST,)))


def of_flows(realm: Realm, packets: Node, names: tuple[str, ...]) -> Node:
    """Return all packets that are like some of these in a few fields."""
    space = realm.space
    kept = {space.levels[name] for name in names}
    others = {level for level in range(len(space.names)) if level not in kept}
    return project(space, packets, others, space.either)


def _as_now(realm: Realm, wrong: Node) -> Node:
    """Return what is wrong of flows that are translated as new ones are."""
    old = {n for n, text in realm.doubts.items() if text.endswith(OTHERWISE)}
    return substitute(realm.space, wrong, dict.fromkeys(old, 0).get)

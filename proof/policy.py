# SPDX-License-Identifier: GPL-2.0-or-later
"""A client's list against the chain that the kernel has for it.

The list is the one of `rules.ground`, first match; the chain is read back from
the kernel.  How the list was compiled is not known here.
"""

from collections.abc import Iterable, Iterator

from proof.answers import Answer, Possible, Proved, Refuted, Unknown
from proof.bytecode import Family as Table
from proof.bytecode import Place
from proof.diagram import Node, OverrunError, Span
from proof.explore import Point, fields_of, pick, value_at
from proof.fields import (
    CT,
    DPORT,
    INVALID,
    L4,
    ORIGINAL_DST,
    PROTO,
    SPORT,
    TRANSPORT,
    WHOLE,
)
from proof.machine import Machine
from proof.outcome import End, Outcome
from proof.space import Space
from proof.trace import Trace
from rules.decide import ICMP, ICMPV6, TCP, UDP
from rules.ground import Ground, Match, Networks
from rules.model import Action, Address, Family, family
from rules.objects import chain_name

ASSUMPTIONS = (
    "conntrack has an entry for the packet and has put its fragments together",
    "conntrack takes no TCP, UDP or ICMP packet without a whole header",
)
_TABLES = {Family.IPV4: Table.IP, Family.IPV6: Table.IP6}
_HEADER = 8  # bytes of the shortest header among TCP, UDP and ICMP
_TYPE = 8  # bits of the first word of ICMP below its type
# A packet that falls off the chain is neither accepted nor refused by it.
_PASSING = frozenset({End.ACCEPT, End.RETURN})
_REFUSING = frozenset({End.DROP, End.REJECT, End.RETURN})
_LIKED = {PROTO: (TCP, UDP, ICMP, ICMPV6), DPORT: (443, 53, 22), TRANSPORT: (20,)}


def accepted(space: Space, ground: Ground, target: str = ORIGINAL_DST) -> Node:
    """Return the packets that the list accepts; ``target`` is where they go to."""
    leaves = {
        action: space.true if action is Action.ACCEPT else space.false
        for action in Action
    }
    rules = [
        space.only(box(space, m, target), leaves[m.action]) for m in ground.matches
    ]
    return space.fold(space.over, [*rules, leaves[ground.default]], space.nothing)


def box(space: Space, match: Match, target: str = ORIGINAL_DST) -> Node:
    """Return the packets that a match of a list is about."""
    found: Node = space.true
    for name, spans in _spans(match, target):
        found = space.both(found, space.within(space.levels[name], *spans))
    return found


def _spans(match: Match, target: str) -> Iterator[tuple[str, Iterable[Span]]]:
    if match.networks is not None:
        yield target, _addresses(match.networks)
    if match.protocols is not None:
        yield PROTO, [(number, number) for number in match.protocols]
    if match.ports is not None:
        yield DPORT, [(match.ports.first, match.ports.last)]
    if match.icmp_types is not None:
        yield (
            SPORT,
            [(n << _TYPE, ((n + 1) << _TYPE) - 1) for n in match.icmp_types],
        )


def _addresses(networks: Networks) -> Iterator[Span]:
    for network in networks:
        yield int(network.network_address), int(network.broadcast_address)


def scope(machine: Machine) -> Node:
    """Return the packets of which `ASSUMPTIONS` hold."""
    space = machine.space
    tracked = space.within(space.levels[CT], (0, INVALID - 1))
    whole = space.within(space.levels[L4], (WHOLE, WHOLE))
    with_header = [(number, number) for number in (ICMP, TCP, UDP, ICMPV6)]
    other = space.minus(space.true, space.within(space.levels[PROTO], *with_header))
    top = space.tops[space.levels[TRANSPORT]]
    long = space.within(space.levels[TRANSPORT], (_HEADER, top))
    return space.both(space.both(tracked, whole), space.either(other, long))


def client_is_as_its_list(machine: Machine, address: Address, ground: Ground) -> Answer:
    """Return whether the client's chain accepts what its list does, and no more.

    ``machine`` is of the address's IP version, and so is ``ground``.
    """
    place = Place(_TABLES[family(address)], "qubes", chain_name(address))
    if place not in machine.code.chains:
        return Unknown(f"there is no chain {place}")
    try:
        return _compared(machine, place, accepted(machine.space, ground))
    except OverrunError as error:
        return Unknown(str(error))


def _compared(machine: Machine, place: Place, wanted: Node) -> Answer:
    space = machine.space
    about = scope(machine)
    accept, refuse = (
        space.both(about, wanted),
        space.minus(about, wanted),
    )
    result = machine.chain(place)
    for ends, wrong in ((_PASSING, refuse), (_REFUSING, accept)):
        surely = space.both(machine.must(result, ends), wrong)
        packet = pick(space, surely, liked=_LIKED)
        if packet is not None:
            return _refuted(machine, place, result, packet)
        perhaps = space.both(machine.may(result, ends), wrong)
        packet = pick(space, perhaps, liked=_LIKED)
        if packet is not None:
            levels = sorted(fields_of(result) & machine.doubts.keys())
            return Possible(packet, tuple(machine.doubts[level] for level in levels))
    witness = pick(space, accept, liked=_LIKED) or pick(space, refuse, liked=_LIKED)
    return Proved(ASSUMPTIONS, witness)


def _refuted(machine: Machine, place: Place, result: Node, packet: Point) -> Refuted:
    match value_at(machine.space, result, packet):
        case Outcome(end):
            return Refuted(packet, end, tuple(Trace(machine, packet).chain(place)))
        case other:
            raise TypeError(f"not an outcome: {other}")

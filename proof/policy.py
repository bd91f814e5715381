# SPDX-License-Identifier: GPL-2.0-or-later
"""What a client's list means, as packets.

The list is the one of `rules.ground`, first match.  How it was compiled is not known
here.
"""

from collections.abc import Iterable, Iterator

from proof.diagram import Node, Span
from proof.fields import DPORT, ORIGINAL_DST, PROTO, SPORT
from proof.space import Space
from rules.ground import Ground, Match, Networks
from rules.model import Action

_TYPE = 8  # bits of the first word of ICMP below its type


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

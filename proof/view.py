# SPDX-License-Identifier: GPL-2.0-or-later
"""What the fields that a chain looks at are made of.

All diagrams about one place are about the packet as it came in.  A chain further
on sees another one: translated, on an interface that routing chose, tracked.
"""

from dataclasses import dataclass, replace

from proof.diagram import Node
from proof.fields import (
    CT,
    DPORT,
    DST,
    FRAGMENTS,
    FRAMED,
    IIF,
    INVALID,
    IPV4,
    L4,
    OIF,
    PROTO,
    SOCKET,
    SPORT,
    SRC,
    TRANSPORT,
)
from proof.machine import Common
from proof.substitute import Field, Less, Meaning, Substitution, Words

FRAME_SOURCE = "frame source"
STATUS = "ct status"
PACKET_TYPE = "packet type"
OF_PACKET = frozenset(
    {SRC, DST, PROTO, SPORT, DPORT, L4, TRANSPORT, FRAGMENTS, "length"}
)
_FRAME = "frame "
_BEGINNINGS = ("transport header ", "network header ", "header ", _FRAME)
_OF_PIECES = frozenset({SRC, DST})
FIRST_BYTE = "network header byte 0"
"""Version and length of the IP header."""
TIME = {4: "network header byte 8", 6: "network header byte 7"}
"""The time to live of IPv4, the hop limit of IPv6: a router counts it down."""
_SUMS = frozenset({"network header byte 10", "network header byte 11"})


@dataclass(frozen=True, slots=True)
class View:
    """A place, how far in it a packet is, and which fields are what by then.

    ``on``: the router has counted the hop.  ``pieces``: what is seen may be any
    fragment of it, which has the same ends and perhaps nothing else.
    """

    name: str
    version: int
    on: bool = False
    pieces: bool = False
    fixed: tuple[tuple[str, Meaning], ...] = ()

    def where(self, fixed: dict[str, Meaning], *, on: bool = False) -> "View":
        """Return the view in which some fields are something else."""
        merged = dict(self.fixed) | fixed
        return replace(self, on=self.on or on, fixed=tuple(sorted_by_name(merged)))


def sorted_by_name(
    fixed: dict[str, Meaning],
) -> list[tuple[str, Meaning]]:
    """Return them in one order, so that equal views are equal."""
    return sorted(fixed.items(), key=lambda item: item[0])


@dataclass(slots=True)
class Viewer:
    """Says diagrams in the words of a view; equal questions are answered once."""

    common: Common
    said: dict[View, Substitution]

    def seen(self, node: Node, view: View) -> Node:
        """Return a diagram about the packet as it came in."""
        if view not in self.said:
            self.said[view] = Substitution(self.common.space, self._words(view))
        return self.said[view][node]

    def _words(self, view: View) -> Words:
        space, fixed = self.common.space, dict(view.fixed)

        def words(level: int) -> Meaning | None:
            name = space.names[level]
            if name in fixed:
                return fixed[name]
            if level in self.common.doubts:
                return None
            stays = name in OF_PACKET or name.startswith(_BEGINNINGS)
            if view.pieces:
                stays = name in _OF_PIECES or name.startswith(_FRAME)
            if stays and view.on and name == TIME[view.version]:
                return Less(level)
            summed = view.on and view.version == IPV4 and name in _SUMS
            if stays and not summed:
                return None
            return self._private(view, level)

        return words

    def _private(self, view: View, level: int) -> Field:
        """Return the field of this place alone that stands for one not known."""
        space = self.common.space
        name = space.names[level]
        stage = "in pieces" if view.pieces else "on" if view.on else "in"
        own = f"{view.name} {stage}: {name}"
        width = space.tops[level].bit_length()
        return Field(choice(self.common, own, width, f"{view.name}: {name}"))


def choice(common: Common, name: str, width: int, reason: str) -> int:
    """Return the level of a field that nobody knows: a doubt of several bits."""
    level = common.space.field(name, width)
    common.doubts.setdefault(level, reason)
    return level


def first_view(name: str, version: int, iif: int, *, framed: bool) -> View:
    """Return what hook prerouting sees before conntrack has looked."""
    fixed: dict[str, Meaning] = {
        IIF: iif,
        OIF: 0,
        CT: INVALID,
        SOCKET: 0,
        FRAMED: int(framed),
        PACKET_TYPE: 0,
    }
    return View(name, version).where(fixed)

# SPDX-License-Identifier: GPL-2.0-or-later
"""For which packets a register equals a constant, or is below it.

Comparisons are those of memcmp(3), as in ``net/netfilter/nft_cmp.c``.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from proof.diagram import Branch, Node, Span, cells
from proof.relabel import relabel
from proof.space import Space
from proof.values import (
    Constant,
    Hidden,
    Number,
    Part,
    Picture,
    Value,
    size_of,
    split,
)

_MANY = 12  # free bits of a mask: twice as many intervals for each
_SMALL = 16  # bits of which all numbers can be tried


def masked(top: int, mask: int, value: int) -> list[Span] | None:
    """Return where ``x & mask == value`` for x up to ``top``; None: too many."""
    mask &= top
    if value & ~mask:
        return []
    if mask == 0:
        return [(0, top)]
    low = (mask & -mask).bit_length() - 1
    free = [bit for bit in range(low, top.bit_length()) if not mask >> bit & 1]
    if len(free) > _MANY:
        return None
    numbers = [value]
    for bit in free:
        numbers += [number | 1 << bit for number in numbers]
    return [(number, number + (1 << low) - 1) for number in sorted(numbers)]


def equal_spans(top: int, part: Number, data: bytes) -> list[Span] | None:
    """Return where these bytes of a field are equal to ``data``."""
    wanted = part.read(data) ^ part.flip
    if wanted & ~part.mask:
        return []
    return masked(top, part.mask << part.shift, wanted << part.shift)


def below_spans(top: int, part: Number, data: bytes) -> list[Span] | None:
    """Return where these bytes of a field come before ``data``."""
    bits = part.size * 8
    if not part.big:
        return None
    limit = part.read(data)
    high = max(0, top.bit_length() - part.shift - bits)
    if high > _MANY:
        return None
    if part.mask == (1 << bits) - 1 and part.flip == 0:
        runs = [(0, limit - 1)] if limit else []
    elif bits <= _SMALL:
        runs = [(n, n) for n in range(1 << bits) if (n & part.mask) ^ part.flip < limit]
    else:
        return None
    starts = [number << part.shift + bits for number in range(1 << high)]
    found = (
        (start + (a << part.shift), start + ((b + 1) << part.shift) - 1)
        for start in starts
        for a, b in runs
    )
    return [(a, min(b, top)) for a, b in found if a <= top]


@dataclass(slots=True)
class Comparisons:
    """Compares values to constants; equal questions are answered once.

    ``doubt`` makes a set of packets that nothing is known of, from a reason.
    """

    space: Space
    doubt: Callable[[str], Node]
    memo: dict[tuple[str, Part, bytes], Node] = field(default_factory=dict)

    def equal(self, value: Value, data: bytes) -> Node:
        """Return the packets whose value is these bytes."""
        found: Node = self.space.true
        position = 0
        for part in split(value):
            piece = data[position : position + size_of(part)]
            found = self.space.both(found, self._part("equal", part, piece))
            position += size_of(part)
        return found

    def below(self, value: Value, data: bytes) -> Node:
        """Return the packets whose value comes before these bytes."""
        found: Node = self.space.false
        same: Node = self.space.true
        position = 0
        for part in split(value):
            piece = data[position : position + size_of(part)]
            less = self._part("below", part, piece)
            found = self.space.either(found, self.space.both(same, less))
            same = self.space.both(same, self._part("equal", part, piece))
            position += size_of(part)
        return found

    def within(self, value: Value, first: bytes, last: bytes) -> Node:
        """Return the packets whose value is in a closed range."""
        upto = self.space.either(self.below(value, last), self.equal(value, last))
        return self.space.minus(upto, self.below(value, first))

    def _part(self, how: str, part: Part, data: bytes) -> Node:
        key = (how, part, data)
        if key in self.memo:
            return self.memo[key]
        found = self._compare(how, part, data)
        if found is None:
            reason = part.reason if isinstance(part, Hidden) else "a scattered mask"
            return self.doubt(reason)
        self.memo[key] = found
        return found

    def _compare(self, how: str, part: Part, data: bytes) -> Node | None:
        match part:
            case Constant(known):
                holds = known == data if how == "equal" else known < data
                return self.space.true if holds else self.space.false
            case Number(level):
                top = self.space.tops[level]
                spans = equal_spans if how == "equal" else below_spans
                found = spans(top, part, data)
                return None if found is None else self.space.within(level, *found)
            case Picture(image, first, size):
                return self._picture(how, image, slice(first, first + size), data)
            case Hidden():
                return None

    def _picture(self, how: str, image: Node, where: slice, data: bytes) -> Node:
        def holds(value: object) -> bool:
            if not isinstance(value, bytes):
                return False
            return value[where] == data if how == "equal" else value[where] < data

        return relabel(self.space, image, holds)


def limits(space: Space, part: Part, first: bytes, last: bytes) -> list[Span] | None:
    """Return where a part is in a closed range, if that is spans of one field."""
    match part:
        case Number(level):
            top = space.tops[level]
            if first == last:
                return equal_spans(top, part, first)
            whole = part.mask == (1 << part.size * 8) - 1 and part.flip == 0
            if whole and part.big and part.shift + part.size * 8 >= top.bit_length():
                low = part.read(first) << part.shift
                high = ((part.read(last) + 1) << part.shift) - 1
                return [(low, min(high, top))] if low <= min(high, top) else []
            return None
        case Picture(Branch() as image, start, size):
            if any(isinstance(child, Branch) for child in image.children):
                return None
            where = slice(start, start + size)
            return [
                span
                for span, child in cells(image)
                if not isinstance(child, Branch)
                and isinstance(child.value, bytes)
                and first <= child.value[where] <= last
            ]
        case Picture() | Constant() | Hidden():
            return None

# SPDX-License-Identifier: GPL-2.0-or-later
"""Sets and maps of the kernel as diagrams of the packets that are in them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

from proof.bytecode import CATCH_ALL, EVALUATED, INTERVAL, INTERVAL_END, Element, Set
from proof.comparisons import Comparisons, limits
from proof.diagram import BOTTOM, Branch, Node, Span
from proof.space import Space
from proof.table import Row, table
from proof.values import Constant, Number, Opaque, Part, Picture, Value, size_of, split

FOUND = "found"
"""What the diagram of a set gives for a packet in it."""
_VANISHES = "an element that may vanish"
_WORD = 4  # a component of a concatenation starts at a multiple of it, in bytes

Key = tuple[bytes, bytes]
"""First and last key of an element."""
Components = tuple[tuple[int, int], ...]
"""Start and length of what is compared at a time, in bytes."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a set holds, ready to be looked up in.

    ``length`` is that of a key, in bytes; ``components`` are empty where a key is
    compared as a whole.
    """

    length: int
    entries: tuple[tuple[Key, Element], ...]
    components: Components
    otherwise: Element | None
    changing: bool


def contents(item: Set) -> Contents:
    """Return the ranges of a set or map."""
    normal = [e for e in item.elements if not e.flags & CATCH_ALL]
    others = [e for e in item.elements if e.flags & CATCH_ALL]
    ranged = bool(item.flags & INTERVAL)
    components: Components = ()
    if ranged and (item.lengths or any(e.end for e in normal)):
        components = _components(item)
        entries = [((e.key, e.end or e.key), e) for e in normal]
    elif ranged:
        entries = list(_intervals(normal, item.key_length))
    else:
        entries = [((e.key, e.key), e) for e in normal]
    return Contents(
        item.key_length,
        tuple(entries),
        components,
        others[0] if others else None,
        changing=bool(item.flags & EVALUATED),
    )


def _components(item: Set) -> Components:
    found: list[tuple[int, int]] = []
    start = 0
    for length in item.lengths or (item.key_length,):
        found.append((start, length))
        start += -(-length // _WORD) * _WORD
    return tuple(found)


def _intervals(elements: list[Element], length: int) -> Iterator[tuple[Key, Element]]:
    """Yield the intervals that start elements and end elements mark.

    As in ``nft_set_rbtree.c``: the last element that is not above the key
    decides, and an end element means that nothing is there.
    """
    ordered = sorted(elements, key=lambda e: (e.key, not e.flags & INTERVAL_END))
    for place, element in enumerate(ordered):
        if element.flags & INTERVAL_END:
            continue
        later = ordered[place + 1].key if place + 1 < len(ordered) else None
        if later is None:
            yield (element.key, b"\xff" * length), element
        elif later > element.key:
            last = int.from_bytes(later, "big") - 1
            yield (element.key, last.to_bytes(len(later), "big")), element


@dataclass(slots=True)
class Lookups:
    """Looks values up; ``comparisons`` are of the same space."""

    space: Space
    comparisons: Comparisons

    def find(self, what: Contents, value: Value) -> Node:
        """Return what each packet finds: bytes, a verdict or `FOUND`; else nothing.

        Of a set that packets change, nothing is known; `Opaque` stands for a
        value out of such a map.
        """
        if what.changing:
            return self.changing(what)
        sure = [entry for entry in what.entries if entry[1].sure]
        found = self._boxes(what.components, sure, value)
        if found is None:
            found = self._one_by_one(what.components, sure, value)
        for entry in what.entries:
            if not entry[1].sure:
                there = self._one_by_one(what.components, [entry], value)
                doubt = self.comparisons.doubt(_VANISHES)
                found = self.space.over(found, self.space.only(doubt, there))
        if what.otherwise is not None:
            rest: Node = self._leaf(what.otherwise)
            if not what.otherwise.sure:
                rest = self.space.only(self.comparisons.doubt(_VANISHES), rest)
            found = self.space.over(found, rest)
        return found

    def changing(self, what: Contents) -> Node:
        """Return what is known of a set that packets change."""
        maps = any(e.value is not None for _, e in what.entries)
        leaf = Opaque("a map that packets change") if maps else FOUND
        doubt = self.comparisons.doubt("a set that packets change")
        return self.space.only(doubt, self.space.leaf(leaf))

    def _leaf(self, element: Element) -> Node:
        return self.space.leaf(FOUND if element.value is None else element.value)

    def _boxes(
        self, components: Components, entries: list[tuple[Key, Element]], value: Value
    ) -> Node | None:
        """Return all at once, if every part of the value is about one field."""
        layout = _layout(components, value)
        if layout is None:
            return None
        levels = [_level(part) for _, part in layout]
        known = [level for level in levels if level < BOTTOM]
        exact = bool(components) or all(low == high for (low, high), _ in entries)
        if len(set(known)) != len(known) or not (exact or len(layout) == 1):
            return None
        order = sorted(range(len(levels)), key=levels.__getitem__)[: len(known)]
        rows: list[Row] = []
        for (low, high), element in entries:
            spans: list[list[Span]] = []
            for start, part in layout:
                end = start + size_of(part)
                found = self._spans(part, low[start:end], high[start:end])
                if found is None:
                    return None
                spans.append(found)
            if all(spans):
                leaf = self._leaf(element)
                rows += ((box, leaf) for box in product(*(spans[i] for i in order)))
        return table(self.space, [levels[i] for i in order], rows)

    def _spans(self, part: Part, low: bytes, high: bytes) -> list[Span] | None:
        if isinstance(part, Constant):
            return [(0, 0)] if low <= part.data <= high else []
        return limits(self.space, part, low, high)

    def _one_by_one(
        self, components: Components, entries: list[tuple[Key, Element]], value: Value
    ) -> Node:
        rules = []
        for (low, high), element in entries:
            there: Node = self.space.true
            for start, length in components or ((0, len(value)),):
                cut = slice(start, start + length)
                part = self._compared(value[cut], low[cut], high[cut])
                there = self.space.both(there, part)
            rules.append(self.space.only(there, self._leaf(element)))
        return self.space.fold(self.space.over, rules, self.space.nothing)

    def _compared(self, value: Value, low: bytes, high: bytes) -> Node:
        if low == high:
            return self.comparisons.equal(value, low)
        return self.comparisons.within(value, low, high)


@lru_cache(maxsize=2**12)
def _layout(
    components: Components, value: Value
) -> tuple[tuple[int, Part], ...] | None:
    """Return each part of a value and where it starts.

    None: a component is made of several.
    """
    found: list[tuple[int, Part]] = []
    for start, length in components or ((0, len(value)),):
        position = start
        parts = split(value[start : start + length])
        if components and len(parts) > 1:
            return None
        for part in parts:
            found.append((position, part))
            position += size_of(part)
    return tuple(found)


def _level(part: Part) -> int:
    match part:
        case Number(level):
            return level
        case Picture(Branch(level)):
            return level
        case _:
            return BOTTOM

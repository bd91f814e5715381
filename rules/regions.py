# SPDX-License-Identifier: GPL-2.0-or-later
"""Which scope decides where: everywhere, in regions, and at single points.

Two prefixes are disjoint or one holds the other.  So each prefix inherits the
step function of the smallest prefix around it, and a region is what the
prefixes within leave of it.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rules.segments import Segment
from rules.services import Span, Step, Steps, decider, first_match

_BEYOND = 2**128

Region = tuple[int, int, Steps]
"""First and last address, and what decides there."""
Cells = dict[tuple[int, int], int]
"""Address and point to the scope that decides there."""


def resolve(scopes: Segment) -> tuple[Steps, tuple[Region, ...], Cells]:
    """Return what decides, as places in ``scopes``.

    First the scopes for every destination among themselves; then those for
    prefixes; then, of all, who decides at the points of the exact ones.
    """
    everywhere: list[Step] = []
    prefixes: dict[Span, list[Step]] = {}
    cells: Cells = {}
    for place, scope in enumerate(scopes):
        if scope.exact:
            for address, _ in scope.prefixes or ():
                for point, _ in scope.services:
                    cells.setdefault((address, point), place)
            continue
        steps = [(first, last, place) for first, last in scope.services]
        if scope.prefixes is None:
            everywhere += steps
        for prefix in scope.prefixes or ():
            prefixes.setdefault(prefix, []).extend(steps)
    for_all, found = first_match(everywhere), regions(prefixes)
    for cell, place in cells.items():
        address, point = cell
        around = _steps_at(found, address)
        near = decider(around, point, place) if around else place
        cells[cell] = decider(for_all, point, near) if for_all else near
    return for_all, found, cells


def regions(prefixes: Mapping[Span, Iterable[Step]]) -> tuple[Region, ...]:
    """Cut the address space at these prefixes, given as first and last address.

    The regions are disjoint and ascending; addresses in no prefix are left out.
    """
    found: list[Region] = []
    around: list[tuple[int, Steps]] = []
    position = 0

    def cut(last: int) -> None:
        nonlocal position
        while around:
            end, steps = around[-1]
            if position <= min(end, last):
                found.append((position, min(end, last), steps))
                position = min(end, last) + 1
            if end > last:
                return
            around.pop()

    for first, last in sorted(prefixes, key=lambda prefix: (prefix[0], -prefix[1])):
        cut(first - 1)
        position = first
        inherited = around[-1][1] if around else ()
        around.append((last, first_match([*prefixes[first, last], *inherited])))
    cut(_BEYOND)
    return tuple(found)


def _steps_at(found: Sequence[Region], address: int) -> Steps:
    place = bisect_right(found, (address, _BEYOND)) - 1
    return found[place][2] if place >= 0 and found[place][1] >= address else ()


def shards(found: Sequence[Region], typical: int) -> Iterator[Sequence[Region]]:
    """Cut a list of regions into runs of about ``typical``, a prime number.

    Where to cut depends on the address there and on nothing else, so a changed
    region changes its own run only.  (Modulo a Mersenne prime, all the bits of
    an address count.)
    """
    start = 0
    for place, (first, _, _) in enumerate(found):
        if place > start and first % (2**61 - 1) % typical == 0:
            yield found[start:place]
            start = place
    yield found[start:]

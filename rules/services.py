# SPDX-License-Identifier: GPL-2.0-or-later
"""Protocols, ports and ICMP types as points on one line.

Protocols follow each other in order of their IANA number.  TCP and UDP take a
point for each destination port, ICMP and ICMPv6 one for each type, every other
protocol a single point.  What rules say about a packet besides its destination
is then a set of intervals, and the first match is a step function.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from heapq import heappop, heappush
from itertools import accumulate, pairwise

FIELDS = {1: "icmp type", 6: "th dport", 17: "th dport", 58: "icmpv6 type"}
"""What nft calls the field of a protocol that rules may look at."""
_WIDTHS = {1: 256, 6: 65536, 17: 65536, 58: 256}
_PROTOCOLS = range(256)

START = tuple(accumulate((_WIDTHS.get(p, 1) for p in _PROTOCOLS), initial=0))
"""First point of each protocol; ``START[256]`` ends the line."""
LAST = START[-1] - 1

Span = tuple[int, int]
"""First and last point of an interval."""
Step = tuple[int, int, int]
"""An interval and the number of the rule that decides there."""
Steps = tuple[Step, ...]
"""A step function: disjoint, ascending; no rule decides in the gaps."""
Aim = tuple[int, int, str]
"""An interval and its nft verdict."""


def spans(
    protocols: Iterable[int] | None, fields: tuple[Span, ...] | None
) -> tuple[Span, ...]:
    """Return where these protocols (None: all) lie on the line.

    ``fields`` are ranges of ports or of ICMP types; None means all.
    """
    if protocols is None:
        return ((0, LAST),)
    if fields is None:
        return tuple((START[p], START[p + 1] - 1) for p in sorted(protocols))
    return tuple(
        (START[protocol] + first, START[protocol] + last)
        for protocol in sorted(protocols)
        for first, last in fields
    )


def first_match(steps: Iterable[Step]) -> Steps:
    """Resolve overlaps: where several rules match, the lowest number decides."""
    ordered = sorted(steps)
    if all(a[1] < b[0] for a, b in pairwise(ordered)):
        return tuple(ordered)
    cuts = sorted({c for first, last, _ in ordered for c in (first, last + 1)})
    found: list[Step] = []
    open_rules: list[tuple[int, int]] = []
    waiting = iter(ordered)
    step = next(waiting, None)
    for cut, following in pairwise(cuts):
        first = cut
        while step is not None and step[0] <= cut:
            heappush(open_rules, (step[2], step[1]))
            step = next(waiting, None)
        while open_rules and open_rules[0][1] < cut:
            heappop(open_rules)
        if open_rules:
            number = open_rules[0][0]
            if found and found[-1][1:] == (cut - 1, number):
                first = found.pop()[0]
            found.append((first, following - 1, number))
    return tuple(found)


def decider(steps: Steps, point: int, other: int) -> int:
    """Return the rule that decides at ``point``, when ``other`` matches there too."""
    place = bisect_right(steps, (point, LAST, LAST)) - 1
    if place >= 0 and steps[place][1] >= point:
        return min(steps[place][2], other)
    return other


def protocol_at(point: int) -> int:
    """Return the IANA number of the protocol a point belongs to."""
    return bisect_right(START, point) - 1


def aims_of(steps: Steps, verdict: Callable[[int], str]) -> tuple[Aim, ...]:
    """Name the verdicts of a step function, and join neighbours that agree."""
    aims: list[Aim] = []
    for first, last, number in steps:
        word = verdict(number)
        if aims and aims[-1][1:] == (first - 1, word):
            aims[-1] = (aims[-1][0], last, word)
        else:
            aims.append((first, last, word))
    return tuple(aims)


@lru_cache(maxsize=2**16)
def statements(aims: tuple[Aim, ...]) -> tuple[str, ...]:
    """Return nft rules that give each interval its verdict, in any order.

    The intervals are disjoint and ascending.  If they cover the line, the last
    one's verdict is the last rule, without a condition; else packets in the
    gaps reach the end of the rules.
    """
    verdicts = dict.fromkeys(verdict for _, _, verdict in aims)
    covered = sum(last - first + 1 for first, last, _ in aims) > LAST
    otherwise = aims[-1][2] if covered else None
    rules = [
        f"{condition} {verdict}"
        for verdict in verdicts
        if verdict != otherwise
        for condition in _conditions(a[:2] for a in aims if a[2] == verdict)
    ]
    return (*rules, otherwise) if otherwise else tuple(rules)


def _conditions(intervals: Iterable[Span]) -> Iterator[str]:
    """Yield nft matches of which one holds for a packet in these intervals.

    One for each protocol: a rule is cheaper to load than the anonymous set that
    would hold two protocols.
    """
    whole: list[int] = []
    parts: dict[int, list[Span]] = {}
    for interval in intervals:
        for protocol, first, last in _protocols(interval):
            if last - first + 1 == START[protocol + 1] - START[protocol]:
                whole.append(protocol)
            else:
                parts.setdefault(protocol, []).append((first, last))
    if whole:
        yield f"meta l4proto {alternatives(_joined(whole))}"
    for protocol, ranges in parts.items():
        yield f"meta l4proto {protocol} {FIELDS[protocol]} {alternatives(ranges)}"


def _protocols(interval: Span) -> Iterator[tuple[int, int, int]]:
    first, last = interval
    protocol = protocol_at(first)
    while protocol in _PROTOCOLS and START[protocol] <= last:
        origin = START[protocol]
        end = min(last, START[protocol + 1] - 1)
        yield protocol, max(first, origin) - origin, end - origin
        protocol += 1


def _joined(numbers: Iterable[int]) -> list[Span]:
    runs: list[Span] = []
    for number in numbers:
        first = runs.pop()[0] if runs and runs[-1][1] + 1 == number else number
        runs.append((first, number))
    return runs


def alternatives(ranges: Iterable[Span]) -> str:
    """Return nft's text for disjoint ranges of numbers."""
    texts = [str(a) if a == b else f"{a}-{b}" for a, b in ranges]
    return texts[0] if len(texts) == 1 else "{ " + ", ".join(texts) + " }"

# SPDX-License-Identifier: GPL-2.0-or-later
"""A set of packets as a few lines for people: where to, and what."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, summarize_address_range

from proof.diagram import Branch, Node, Span, cells, joined
from proof.fields import DPORT, ORIGINAL_DST, PROTO, SPORT
from proof.space import Space
from rules.decide import ICMP, ICMPV6, TCP, UDP
from rules.model import Address, AddressRange, Family, family

MOST = 6  # of what one line lists
_WORDS = {TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMPV6: "icmp"}
_PROTOCOLS = 255
_TYPE = 8  # bits of the first word of ICMP below its type

Hosts = Mapping[Address, str]
"""How some addresses are called."""


def lines(
    space: Space, packets: Node, version: Family, hosts: Hosts
) -> Iterator[tuple[str, Node]]:
    """Yield the name of each part of a set, as ``10.0.0.0/8 tcp/22``, and the part.

    ``space`` has the fields of `controller.reach.Reach`.
    """
    level = space.levels[ORIGINAL_DST]
    for spans, below in _cut(space, packets, ORIGINAL_DST):
        where = _addresses(spans, version, hosts)
        what = _few([*dict.fromkeys(_services(space, below))], " and ")
        yield f"{where} {what}".rstrip(), space.both(space.within(level, *spans), below)


def _services(space: Space, packets: Node) -> Iterator[str]:
    most_ports, most_words = (space.tops[space.levels[n]] for n in (DPORT, SPORT))
    for protocols, below in _cut(space, packets, PROTO):
        names = [*dict.fromkeys(_protocols(protocols))]
        for ports, rest in _cut(space, below, DPORT):
            for words, _ in _cut(space, rest, SPORT):
                types = [(first >> _TYPE, last >> _TYPE) for first, last in words]
                more = _numbers(ports, most_ports, "/", " but port ")
                more += _numbers(types, most_words >> _TYPE, " type ", " but type ")
                yield from (f"{name}{more}" for name in names)


def _cut(space: Space, node: Node, name: str) -> Iterator[tuple[list[Span], Node]]:
    """Yield the values of the next field of a set that leave the same of it."""
    level = space.levels[name]
    if node is space.false:
        return
    if not isinstance(node, Branch) or node.level != level:
        yield [(0, space.tops[level])], node
        return
    found: dict[Node, list[Span]] = {}
    for span, child in cells(node):
        if child is not space.false:
            found.setdefault(child, []).append(span)
    yield from ((spans, child) for child, spans in found.items())


def _addresses(spans: Sequence[Span], version: Family, hosts: Hosts) -> str:
    """Return the shortest of three ways to say which addresses."""
    named = {int(a): name for a, name in hosts.items() if family(a) is version}
    gaps = _gaps(spans, (1 << version.value) - 1)
    holes = [gap for gap in gaps if _are(gap, named)]
    plain = _networks(spans, version, named)
    around = _networks([*joined([*spans, *holes])], version, named)
    but = _networks(holes, version, named)
    without = _networks(gaps, version, named)
    if holes and len(around) + len(but) < len(plain):
        return f"{_few(around)} but {_few(but)}"
    if without and len(without) < len(plain):
        return f"all but {_few(without)}"
    return _few(plain)


def _are(span: Span, named: Mapping[int, str]) -> bool:
    first, last = span
    short = last - first < len(named)
    return short and all(number in named for number in range(first, last + 1))


def _networks(
    spans: Sequence[Span], version: Family, named: Mapping[int, str]
) -> list[str]:
    names: list[str] = []
    others: list[Span] = []
    for span in spans:
        if _are(span, named):
            names += [named[number] for number in _each([span])]
        else:
            others.append(span)
    return [*dict.fromkeys(names), *_prefixes(others, version)]


def _prefixes(spans: Iterable[Span], version: Family) -> list[str]:
    found: list[AddressRange] = []
    for first, last in spans:
        match version:
            case Family.IPV4:
                found += summarize_address_range(IPv4Address(first), IPv4Address(last))
            case Family.IPV6:
                found += summarize_address_range(IPv6Address(first), IPv6Address(last))
    return [str(n).removesuffix(f"/{n.max_prefixlen}") for n in found]


def _protocols(spans: Sequence[Span]) -> list[str]:
    gaps = _gaps(spans, _PROTOCOLS)
    if not gaps:
        return [""]
    within, without = _each(spans), _each(gaps)
    if len(without) < len(within):
        return [f"all but {_few([*map(_protocol, without)])}"]
    return [*map(_protocol, within)]


def _each(spans: Iterable[Span]) -> list[int]:
    return [number for first, last in spans for number in range(first, last + 1)]


def _protocol(number: int) -> str:
    return _WORDS.get(number, f"protocol {number}")


def _numbers(spans: Iterable[Span], top: int, of: str, but: str) -> str:
    """Return numbers behind a word: all of them is none, most is all but some."""
    within = [*joined(spans)]
    gaps = _gaps(within, top)
    if not gaps:
        return ""
    some, word = (gaps, but) if len(gaps) < len(within) else (within, of)
    return word + _few([f"{a}-{b}" if b > a else str(a) for a, b in some], ",")


def _few(words: Sequence[str], comma: str = ", ") -> str:
    more = [f"{len(words) - MOST} more"] if len(words) > MOST else []
    return comma.join([*words[:MOST], *more])


def _gaps(spans: Sequence[Span], top: int) -> list[Span]:
    """Return what is not in disjoint, rising spans."""
    found: list[Span] = []
    start = 0
    for first, last in spans:
        if first > start:
            found.append((start, first - 1))
        start = last + 1
    return [*found, (start, top)] if start <= top else found

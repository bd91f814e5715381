# SPDX-License-Identifier: GPL-2.0-or-later
"""A segment of a client's list, compiled to maps and to chains they lead to.

What is compiled is remembered by the identity of the scopes, so a changed rule
costs the work of its own segment.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from ipaddress import IPv4Address, IPv6Address

from rules.model import Action, Address
from rules.objects import IP, IP6, Chain, Key, Map, Object, chain_name
from rules.regions import Region, resolve, shards
from rules.segments import Segment
from rules.services import (
    LAST,
    START,
    Step,
    Steps,
    aims_of,
    first_match,
    protocol_at,
    statements,
)

REMEMBERED = 64
"""Segments, of the longest lists that change."""

VERDICTS = {Action.ACCEPT: "accept", Action.DROP: "goto refuse"}


@dataclass(frozen=True, slots=True)
class Writer:
    """The words of a client's IP version, and where its objects are collected."""

    table: str
    kind: str
    destination: str
    bits: int
    text: Callable[[int], str]
    name: str
    shard: int
    objects: dict[Key, Object] = field(default_factory=dict)

    def add(self, suffix: str, content: Object) -> str:
        """Collect an object; return its name."""
        name = f"{self.name}_{suffix}"
        self.objects[Key(self.table, name)] = content
        return name

    def by_point(self, suffix: str, elements: Mapping[str, str]) -> str:
        """Return a rule that looks up address, protocol and port in a new map."""
        declaration = f"type {self.kind} . inet_proto . inet_service : verdict;"
        name = self.add(suffix, Map(declaration, elements))
        return f"{self.destination} . meta l4proto . th dport vmap @{name}"

    def by_region(self, suffix: str, elements: Mapping[str, str]) -> str:
        """Return a rule that looks up the address in a new map of ranges.

        The protocol is in the key, and never matters, because libnftables reads
        all maps of simple ranges back before it adds one element anywhere
        (``src/cache.c``), and none of concatenated ones.
        """
        declaration = f"type {self.kind} . inet_proto : verdict; flags interval;"
        elements = {f"{key} . 0-255": value for key, value in elements.items()}
        name = self.add(suffix, Map(declaration, elements))
        return f"{self.destination} . meta l4proto vmap @{name}"

    def addresses(self, first: int, last: int) -> str:
        """Return nft's text for a range of addresses."""
        return self.text(first) + (f"-{self.text(last)}" if last > first else "")


@lru_cache(maxsize=2**16)
def _text4(address: int) -> str:
    return str(IPv4Address(address))


@lru_cache(maxsize=2**16)
def _text6(address: int) -> str:
    return str(IPv6Address(address))


def writer(address: Address, shard: int = 1) -> Writer:
    """Return an empty one for the table of this address."""
    name = chain_name(address)
    match address:
        case IPv4Address():
            words = IP, "ipv4_addr", "ct original ip daddr"
            return Writer(*words, 32, _text4, name, shard)
        case IPv6Address():
            words = IP6, "ipv6_addr", "ct original ip6 daddr"
            return Writer(*words, 128, _text6, name, shard)


@lru_cache(maxsize=REMEMBERED)
def segment(
    address: Address, number: int, scopes: Segment, default: Action | None, shard: int
) -> tuple[tuple[str, ...], Mapping[Key, Object]]:
    """Return the entry's rules for a segment, and the objects they need.

    Without a default it may fall through.  ``shard`` is a prime number: about how
    many regions are in one map.
    """
    client = writer(address, shard)
    rules = tuple(_segment(client, number, scopes, default))
    return rules, client.objects


def _segment(
    client: Writer, number: int, scopes: Segment, default: Action | None
) -> Iterator[str]:
    accept, refuse = VERDICTS[Action.ACCEPT], VERDICTS[Action.DROP]
    words = [accept if s.action is Action.ACCEPT else refuse for s in scopes]
    everywhere, found, cells = resolve(scopes)
    if cells:
        elements: dict[str, str] = {}
        for (address, point), place in cells.items():
            protocol = protocol_at(point)
            service = f"{protocol} . {point - START[protocol]}"
            elements[f"{client.text(address)} . {service}"] = words[place]
        yield client.by_point(f"e{number}", elements)
    if found:
        chains = _Chains(client, number, scopes, everywhere)
        yield _lookup(client, number, found, chains.region)
    if default is not None:
        everywhere = first_match([*everywhere, (0, LAST, len(words))])
        words.append(VERDICTS[default])
    yield from statements(aims_of(everywhere, words.__getitem__))


def _lookup(
    client: Writer,
    number: int,
    found: tuple[Region, ...],
    verdict: Callable[[Steps], str],
) -> str:
    """Return the rule that leads from the address to its region's chain."""
    runs = list(shards(found, client.shard))
    starts = [0, *(run[0][0] for run in runs[1:])]
    ends = [*(start - 1 for start in starts[1:]), 2**client.bits - 1]
    top: dict[str, str] = {}
    for start, end, run in zip(starts, ends, runs, strict=True):
        place = f"{number}_{start:x}"
        elements = {client.addresses(a, b): verdict(steps) for a, b, steps in run}
        rule = client.by_region(f"m{place}", elements)
        name = client.add(f"s{place}", Chain((rule,)))
        top[client.addresses(start, end)] = f"jump {name}"
    if len(top) == 1:
        return top.popitem()[1]
    return client.by_region(f"r{number}", top)


@dataclass(slots=True)
class _Chains:
    """Makes the chains that decide within regions, one for each need."""

    client: Writer
    number: int
    scopes: Segment
    everywhere: Steps
    regional: dict[Steps, str] = field(default_factory=dict)
    opposing: dict[Action, list[Step]] = field(default_factory=dict)
    exceptional: dict[tuple[Action, int], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for action in Action:
            self.opposing[action] = sorted(
                (place, first, last)
                for first, last, place in self.everywhere
                if self.scopes[place].action is not action
            )

    def region(self, steps: Steps) -> str:
        """Return the verdict for a region where these steps decide."""
        if steps not in self.regional:
            aims = aims_of(steps, self._scope)
            if len(aims) == 1 and aims[0][:2] == (0, LAST):
                self.regional[steps] = aims[0][2]
            else:
                rules = statements(aims)
                name = self.client.add(f"c_{_digest(rules)}", Chain(rules))
                self.regional[steps] = f"goto {name}"
        return self.regional[steps]

    def _scope(self, place: int) -> str:
        """Return a scope's verdict, unless one for everywhere comes before it."""
        action = self.scopes[place].action
        opposing = self.opposing[action]
        count = bisect_left(opposing, (place, 0, 0))
        if count == 0:
            return VERDICTS[action]
        if (action, count) not in self.exceptional:
            last = self.scopes[opposing[count - 1][0]]
            other = VERDICTS[last.action]
            aims = sorted((a, b, other) for _, a, b in opposing[:count])
            rules = (*statements(tuple(aims)), VERDICTS[action])
            name = f"u{self.number}_{_digest((other, last.services))}"
            self.exceptional[action, count] = (
                f"goto {self.client.add(name, Chain(rules))}"
            )
        return self.exceptional[action, count]


def _digest(content: object) -> str:
    return blake2b(repr(content).encode(), digest_size=8).hexdigest()

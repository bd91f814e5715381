# SPDX-License-Identifier: GPL-2.0-or-later
"""A client's list, compiled to chains and maps of the kernel.

A short list stays a list.  In a long one the way of a packet does not grow
with the number of rules:

1. Map ``_e0`` holds the verdict for every address, protocol and port that a
   rule names exactly.
2. Maps ``_r0`` and ``_m0_…`` lead from the address to a chain ``_c_…`` that
   decides by protocol, port or type; alike regions share one.
3. Chain ``_u0_…`` is in between where earlier rules for every destination may
   decide otherwise.
4. What is left is for the rules for every destination, and the default.

The limit: where wide prefixes with many ports hold many narrow ones, or rules
for every destination alternate with others, the steps of all regions multiply.
The list is then cut into segments where they come to `BUDGET`, visited in order,
and the way of a packet grows with their number.

Names are made of contents or of places that other rules do not move, so a
changed rule changes few objects.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from ipaddress import IPv4Address, IPv6Address

from rules.ground import Ground, Match
from rules.model import Action, Address
from rules.objects import IP, IP6, Chain, Key, Map, Object, chain_name
from rules.regions import Region, resolve, shards
from rules.segments import Segment, segments
from rules.services import (
    FIELDS,
    LAST,
    START,
    Step,
    Steps,
    aims_of,
    alternatives,
    first_match,
    protocol_at,
    statements,
)

LINEAR = 8
BUDGET = 5_000
SHARD = 257

_VERDICTS = {Action.ACCEPT: "accept", Action.DROP: "goto refuse"}


def compile_client(address: Address, ground: Ground) -> Mapping[Key, Object]:
    """Return the objects of one client, in the table of its IP version.

    ``ground`` is of the same version.  The entry is the chain `chain_name`, and
    other names begin with that one and ``_``.  A packet with a conntrack entry
    ends in ``accept`` or ``goto refuse``; no other packet may come here.
    """
    client = _client(address)
    rules: list[str] = []
    if len(ground.matches) <= LINEAR:
        rules += (_rule(client, match) for match in ground.matches)
        rules.append(_VERDICTS[ground.default] + ' comment "default"')
    else:
        parts = list(segments(ground.matches, BUDGET))
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            rules += _segment(client, number, part, ground.default if last else None)
    client.objects[Key(client.table, client.name)] = Chain(tuple(rules))
    return client.objects


@dataclass(frozen=True, slots=True)
class _Client:
    """The words of a client's IP version, and where its objects are collected."""

    table: str
    kind: str
    destination: str
    bits: int
    text: Callable[[int], str]
    name: str
    objects: dict[Key, Object] = field(default_factory=dict)

    def add(self, suffix: str, content: Object) -> str:
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
        return self.text(first) + (f"-{self.text(last)}" if last > first else "")


@lru_cache(maxsize=2**16)
def _text4(address: int) -> str:
    return str(IPv4Address(address))


@lru_cache(maxsize=2**16)
def _text6(address: int) -> str:
    return str(IPv6Address(address))


def _client(address: Address) -> _Client:
    name = chain_name(address)
    match address:
        case IPv4Address():
            return _Client(IP, "ipv4_addr", "ct original ip daddr", 32, _text4, name)
        case IPv6Address():
            return _Client(IP6, "ipv6_addr", "ct original ip6 daddr", 128, _text6, name)


def _rule(client: _Client, match: Match) -> str:
    words: list[str] = []
    if match.networks is not None:
        prefixes = ", ".join(map(str, match.networks))
        many = len(match.networks) > 1
        words += (client.destination, f"{{ {prefixes} }}" if many else prefixes)
    if match.protocols is not None:
        protocols = sorted(match.protocols)
        words.append(f"meta l4proto {alternatives((p, p) for p in protocols)}")
        if match.ports is not None:
            ports = (match.ports.first, match.ports.last)
            words.append(f"{FIELDS[protocols[0]]} {alternatives([ports])}")
        if match.icmp_types is not None:
            types = alternatives((t, t) for t in sorted(match.icmp_types))
            words.append(f"{FIELDS[protocols[0]]} {types}")
    words += (_VERDICTS[match.action], f'comment "rule {match.source}"')
    return " ".join(words)


def _segment(
    client: _Client, number: int, scopes: Segment, default: Action | None
) -> Iterator[str]:
    """Yield the entry's rules for a segment; without a default it may fall through."""
    words = [_VERDICTS[scope.action] for scope in scopes]
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
        words.append(_VERDICTS[default])
    yield from statements(aims_of(everywhere, words.__getitem__))


def _lookup(
    client: _Client,
    number: int,
    found: tuple[Region, ...],
    verdict: Callable[[Steps], str],
) -> str:
    """Return the rule that leads from the address to its region's chain."""
    runs = list(shards(found, SHARD))
    starts = [0, *(run[0][0] for run in runs[1:])]
    ends = [*(start - 1 for start in starts[1:]), 2**client.bits - 1]
    top: dict[str, str] = {}
    for start, end, run in zip(starts, ends, runs, strict=True):
        place = f"{number}_{start:x}"
        elements = {client.addresses(a, b): verdict(steps) for a, b, steps in run}
        rule = client.by_region(f"m{place}", elements)
        chain = client.add(f"s{place}", Chain((rule,)))
        top[client.addresses(start, end)] = f"jump {chain}"
    if len(top) == 1:
        return top.popitem()[1]
    return client.by_region(f"r{number}", top)


@dataclass(slots=True)
class _Chains:
    """Makes the chains that decide within regions, one for each need."""

    client: _Client
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
            return _VERDICTS[action]
        if (action, count) not in self.exceptional:
            last = self.scopes[opposing[count - 1][0]]
            other = _VERDICTS[last.action]
            aims = sorted((a, b, other) for _, a, b in opposing[:count])
            rules = (*statements(tuple(aims)), _VERDICTS[action])
            name = f"u{self.number}_{_digest((other, last.services))}"
            self.exceptional[action, count] = (
                f"goto {self.client.add(name, Chain(rules))}"
            )
        return self.exceptional[action, count]


def _digest(content: object) -> str:
    return blake2b(repr(content).encode(), digest_size=8).hexdigest()

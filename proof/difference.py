# SPDX-License-Identifier: GPL-2.0-or-later
"""What a change of a client's list means, and which rules of one mean nothing."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, summarize_address_range

from proof.diagram import Branch, Node, Span, cells
from proof.explore import unreachable
from proof.fields import DPORT, DST, IPV4, PROTO, SPORT
from proof.policy import accepted, box
from proof.space import Space
from rules.decide import ICMP, ICMPV6, TCP, UDP
from rules.ground import Ground
from rules.model import MAX_PORT, AddressRange

_BITS = {4: 32, 6: 128}
_WORDS = {TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMPV6: "icmp"}
_ALL = (0, 255)  # protocols
_TYPE = 8  # bits of the first word of ICMP below its type


@dataclass(frozen=True, slots=True)
class Box:
    """Packets: some destinations, or with ``but`` all except these, and services.

    No destination with ``but``: anywhere.  A service is "tcp/22", "udp/1-1024",
    "icmp type 8", "tcp", "protocol 47" or "everything".
    """

    networks: tuple[AddressRange, ...]
    services: tuple[str, ...]
    but: bool = False

    def __str__(self) -> str:
        places = ", ".join(_short(network) for network in self.networks)
        if self.but:
            places = f"anywhere but {places}" if places else "anywhere"
        return f"{places} {', '.join(self.services)}"


@dataclass(frozen=True, slots=True)
class Difference:
    """What a client may now also reach, and what it no longer may."""

    gained: tuple[Box, ...]
    lost: tuple[Box, ...]


def difference(old: Ground, new: Ground, version: int) -> Difference:
    """Return what two lists of one IP version (4 or 6) do not agree about."""
    space = _space(version)
    before, after = accepted(space, old, DST), accepted(space, new, DST)
    return Difference(
        tuple(_boxes(space, space.minus(after, before), version)),
        tuple(_boxes(space, space.minus(before, after), version)),
    )


def reached(ground: Ground, version: int) -> tuple[Box, ...]:
    """Return all that a list accepts."""
    space = _space(version)
    return tuple(_boxes(space, accepted(space, ground, DST), version))


def shadowed(ground: Ground, version: int) -> tuple[int, ...]:
    """Return the places in their list of the rules that never decide.

    Exactly those that the rules before them cover together; rules that are about
    no packet of this IP version are in no ground and not in the answer.
    """
    space = _space(version)
    rules = [box(space, match, DST) for match in ground.matches]
    return tuple(ground.matches[place].source for place in unreachable(space, rules))


def _space(version: int) -> Space:
    return Space([(DST, _BITS[version]), (PROTO, 8), (DPORT, 16), (SPORT, 16)])


def _boxes(space: Space, found: Node, version: int) -> Iterator[Box]:
    if found is space.false:
        return
    for child, spans in _grouped(space, found, DST).items():
        if child is space.false:
            continue
        services = tuple(_services(space, child))
        inside = _networks(spans, version)
        outside = _networks(_gaps(spans, space.tops[0]), version)
        if len(outside) < len(inside):
            yield Box(outside, services, but=True)
        else:
            yield Box(inside, services)


def _grouped(space: Space, found: Node, name: str) -> dict[Node, list[Span]]:
    """Return where a field leads to the same, the whole of it if it is not asked."""
    level = space.levels[name]
    if not isinstance(found, Branch) or found.level != level:
        return {found: [(0, space.tops[level])]}
    groups: dict[Node, list[Span]] = {}
    for span, child in cells(found):
        groups.setdefault(child, []).append(span)
    return groups


def _gaps(spans: Iterable[Span], top: int) -> list[Span]:
    found, start = [], 0
    for first, last in spans:
        if first > start:
            found.append((start, first - 1))
        start = last + 1
    return [*found, (start, top)] if start <= top else found


def _networks(spans: Iterable[Span], version: int) -> tuple[AddressRange, ...]:
    found: list[AddressRange] = []
    for first, last in spans:
        if version == IPV4:
            ends = IPv4Address(first), IPv4Address(last)
            found += summarize_address_range(*ends)
        else:
            ends6 = IPv6Address(first), IPv6Address(last)
            found += summarize_address_range(*ends6)
    return tuple(found)


def _services(space: Space, found: Node) -> Iterator[str]:
    for child, spans in _grouped(space, found, PROTO).items():
        if child is space.false:
            continue
        for span in spans:
            yield from _service(space, span, child)


def _service(space: Space, protocols: Span, found: Node) -> Iterator[str]:
    first, last = protocols
    name = _WORDS.get(first, f"protocol {first}")
    if protocols == _ALL:
        name = "everything"
    elif first != last:
        name = f"protocols {first}-{last}"
    if found is space.true:
        yield name
        return
    for child, spans in _grouped(space, found, DPORT).items():
        if child is space.false:
            continue
        for span in spans:
            if span != (0, MAX_PORT):
                yield f"{name}/{_range(span)}"
                continue
            types = _grouped(space, child, SPORT)
            for low, high in types.get(space.true, ()):
                yield f"{name} type {_range((low >> _TYPE, high >> _TYPE))}"


def _range(span: Span) -> str:
    first, last = span
    return str(first) if first == last else f"{first}-{last}"


def _short(network: AddressRange) -> str:
    whole = network.prefixlen == network.max_prefixlen
    return str(network.network_address) if whole else str(network)

# SPDX-License-Identifier: GPL-2.0-or-later
"""What is claimed of every kernel: what the policy implies, and what it asserts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from controller.assertions import Assertion, Blocked, OnlyThrough, Reach
from controller.meant import meant
from controller.nowhere import NEVER
from controller.scene import VERSIONS, Scene, leads_on, lists, versions
from proof.claims import (
    Alone,
    Asserted,
    Claim,
    Expect,
    NoLessThanList,
    NoMoreThanList,
    NothingOld,
    OwnOf,
    implied,
)
from proof.world import World
from rules.decide import ICMP, ICMPV6, TCP, UDP
from rules.model import Name, Proto

_NUMBERS = {
    Proto.TCP: frozenset({TCP}),
    Proto.UDP: frozenset({UDP}),
    Proto.ICMP: frozenset({ICMP, ICMPV6}),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A claim, and the words of who asked for it; None: it is implied."""

    claim: Claim
    words: str | None = None


Missing = Mapping[str, str]
"""Domains whose network could not be read, and why."""


def claims(scene: Scene, known: World, missing: Missing) -> Iterator[Asked]:
    """Yield what must hold without being asked, and what is asserted."""
    clients = {
        d.name: lists(scene, d, known.others.get(d.netvm))
        for d in scene.domains
        if d.netvm is not None
    }
    alone = (d for d in scene.domains if d.netvm is None and not d.provides_network)
    for claim in implied(known, clients, NEVER, tuple(d.name for d in alone)):
        match claim:
            case NoLessThanList(client):
                # What a daemon does with all that it is handed is not to be seen.
                kind = scene.domains.path(client)[0].personality
                daemon = kind is not None and kind.tunnels == ()
                if scene.shut(client) is None and not daemon:
                    yield Asked(_carried(scene, claim, known))
            case NoMoreThanList(client, its_lists):
                yield Asked(claim)
                yield Asked(NothingOld(client, its_lists, NEVER))
            case _:
                yield Asked(claim)
    for name in scene.users.keys() & known.places.keys():
        yield Asked(OwnOf(name, scene.users[name]))
    for assertion, source in _asserted(scene):
        found = _claim(scene, assertion, source, missing)
        if not isinstance(found, str):
            yield Asked(found, _words(assertion))


def _carried(scene: Scene, claim: NoLessThanList, known: World) -> NoLessThanList:
    """Return the claim about the IP versions in which its netvm leads on at all."""
    place = known.places[scene.domains.path(claim.client)[0].name]
    carried = {v: each for v, each in claim.lists.items() if leads_on(place, v)}
    return replace(claim, lists=carried)


def doubts(scene: Scene, missing: Missing) -> Iterator[tuple[str, str]]:
    """Yield what cannot be claimed at all, and why: never a proof."""
    for domain in scene.domains:
        if domain.name in missing:
            yield f"{domain.name} is as it should be", missing[domain.name]
        if domain.netvm is not None and domain.name not in scene.serials:
            yield f"{domain.name} is as it should be", "it is not linked to its netvm"
        elif domain.netvm is not None and (why := scene.shut(domain.name)) is not None:
            yield f"{domain.name} reaches all that its list accepts", why
    for assertion, source in _asserted(scene):
        found = _claim(scene, assertion, source, missing)
        if isinstance(found, str):
            yield _words(assertion), found
        for target in assertion.targets:
            if isinstance(target, Name) and not scene.names.get(target.host):
                yield _words(assertion), f"{target.host} has no known address"


def _words(assertion: Assertion) -> str:
    return f"{assertion}, as line {assertion.line} asserts"


def _asserted(scene: Scene) -> Iterator[tuple[Assertion, str]]:
    for assertion in scene.asserted:
        for source in assertion.sources:
            yield assertion, source


def _claim(
    scene: Scene, assertion: Assertion, source: str, missing: Missing
) -> Claim | str:
    """Return what an assertion claims of a domain, or why that is nothing."""
    unread = [d.name for d in scene.domains.path(source) if d.name in missing]
    if unread:
        return f"{unread[0]}, which is on the way, could not be read"
    reach = isinstance(assertion.expect, Reach)
    shut = scene.shut(source) if reach else None
    if shut is not None:
        return shut
    domain = scene.domains.named(source)
    if domain.netvm is None:
        return f"{source} has no netvm" if reach else Alone(source)
    wanted = versions(scene, domain) if reach else VERSIONS.keys()
    to = tuple(
        network
        for network in meant(assertion, scene.domains, scene.names)
        if network.version in wanted
    )
    if not to:  # a claim without any would be about all of them
        return f"there is no address of which {source} could send packets"
    protocols = None if assertion.proto is None else _NUMBERS[assertion.proto]
    return Asserted(
        source,
        to,
        protocols,
        assertion.ports,
        _expect(assertion),
        pings=reach and assertion.proto is Proto.ICMP,
    )


def _expect(assertion: Assertion) -> Expect | str:
    match assertion.expect:
        case Reach():
            return Expect.REACH
        case Blocked():
            return Expect.BLOCKED
        case OnlyThrough(domain):
            return domain

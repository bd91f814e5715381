# SPDX-License-Identifier: GPL-2.0-or-later
"""What the uplink of a TorVM carries: never more than this."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from rules.facts import Carried, Facts, Uid
from rules.model import Address, Family, family
from torvm.bridges import Bridge
from torvm.places import TCP, UDP, Place
from torvm.pluggable import Program
from torvm.proxy import Proxy

Known = Mapping[str, frozenset[Address]]
"""The addresses of names in bridge lines, as far as they were answered."""


@dataclass(frozen=True, slots=True)
class Users:
    """Who tor and the programs of its bridges' transports run as."""

    tor: int
    programs: Mapping[Program, int] = field(default_factory=dict)

    def of(self, bridge: Bridge) -> Uid:
        """Return who speaks with a bridge."""
        program = bridge.program
        return Uid(self.tor if program is None else self.programs[program])


@dataclass(frozen=True, slots=True)
class Outside:
    """What there is to get to, beside the relays: a proxy is before all else."""

    bridges: tuple[Bridge, ...] = ()
    proxy: Proxy | None = None
    known: Known = field(default_factory=dict)


def carried(
    users: Users, outside: Outside, relays: Iterable[tuple[Address, int]] | None
) -> Iterator[Carried]:
    """Yield what may leave: to the bridges, or else to ``relays``; None is anyone.

    Behind a transport tor itself sends nothing; its program does.  With a proxy
    nobody sends anything but to the proxy.
    """
    if outside.proxy is not None:
        place = (outside.proxy.address, outside.proxy.port)
        senders = {users.of(bridge) for bridge in outside.bridges}
        for uid in senders or {Uid(users.tor)}:
            yield Carried(uid, TCP, place)
        return
    for bridge in outside.bridges:
        yield from _to(bridge, users.of(bridge), outside.known)
    if outside.bridges:
        return
    if relays is None:
        yield Carried(Uid(users.tor), TCP, None)
        return
    for place in relays:
        yield Carried(Uid(users.tor), TCP, place)


def _to(bridge: Bridge, uid: Uid, known: Known) -> Iterator[Carried]:
    for place in bridge.way.places:
        for address in addresses(place, known):
            yield Carried(uid, place.proto, (address, place.port))
    if bridge.way.anyone:
        yield Carried(uid, UDP, None)


def addresses(place: Place, known: Known) -> frozenset[Address]:
    """Return the addresses of a place, none if its name was not answered."""
    if isinstance(place.host, str):
        return known.get(place.host, frozenset())
    return frozenset({place.host})


def families(facts: Facts) -> frozenset[Family]:
    """Return the IP versions in which an uplink has an address and a next hop."""
    return frozenset(
        family(gateway)
        for uplink in facts.uplinks
        for gateway in uplink.gateways
        if any(family(own) is family(gateway) for own in uplink.own)
    )

# SPDX-License-Identifier: GPL-2.0-or-later
"""What the uplink of a TorVM carries: never more than this."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rules.facts import Carried, Facts, Uid
from rules.model import Address, Family, family
from torvm.bridges import Bridge

TCP = 6


@dataclass(frozen=True, slots=True)
class Users:
    """Who tor and the program of its bridges' transports run as."""

    tor: int
    transport: int | None = None


def carried(
    users: Users,
    bridges: Iterable[Bridge],
    relays: Iterable[tuple[Address, int]] | None,
) -> Iterator[Carried]:
    """Yield what may leave: to the bridges, or else to ``relays``; None is anyone.

    Behind a transport tor itself sends nothing; its program does.
    """
    known = tuple(bridges)
    for bridge in known:
        behind = bridge.transport and users.transport is not None
        uid = users.transport if behind and users.transport else users.tor
        yield Carried(Uid(uid), TCP, (bridge.address, bridge.port))
    if known:
        return
    if relays is None:
        yield Carried(Uid(users.tor), TCP, None)
        return
    for place in relays:
        yield Carried(Uid(users.tor), TCP, place)


def families(facts: Facts) -> frozenset[Family]:
    """Return the IP versions in which an uplink has an address and a next hop."""
    return frozenset(
        family(gateway)
        for uplink in facts.uplinks
        for gateway in uplink.gateways
        if any(family(own) is family(gateway) for own in uplink.own)
    )

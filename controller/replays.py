# SPDX-License-Identifier: GPL-2.0-or-later
"""A counterexample as a real packet: sent where it enters, looked for where it ends."""

import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

from controller.ports import VIF_MAC
from controller.scene import ETH0
from proof.claims import Result
from proof.fields import NEW
from proof.replay import Watch, send
from proof.wire import frame
from proof.world import World

PATIENCE = 1.0  # seconds; a packet that has to wait for a neighbour's answer is late
MARK = 16  # bytes at the end of the packet, by which it is known

Inside = Callable[[str], AbstractContextManager[None]]
"""Puts the thread into the network of a domain for a while."""


def replay(result: Result, known: World, inside: Inside) -> str:
    """Send the packet of a result; return what became of it, for people."""
    place = known.places.get(result.domain)
    client = None if place is None else place.clients.get(result.came_by)
    if result.packet is None or client is None:
        return "not replayed: it does not come from a domain"
    if result.packet.state != NEW:
        return "not replayed: it belongs to no flow that could be opened for it"
    last = result.hops[-1] if result.hops else None
    leaks = last is not None and last.verdict == "sent" and last.out is not None
    where, out = (last.domain, last.out) if leaks and last else _way_on(result, known)
    if out is None:
        return f"not replayed: {result.domain} has no way on to watch"
    try:
        seen = _sent(result, client.name, (where, out), inside)
    except OSError as error:
        return f"not replayed: {error}"
    if seen:
        return f"replayed: it left {where} by {out}"
    return f"replayed: it did not leave {where} by {out}"


def _way_on(result: Result, known: World) -> tuple[str, str | None]:
    """Return where a packet would leave that should have passed."""
    return result.domain, next(iter(known.places[result.domain].uplinks), None)


def _sent(result: Result, client: str, end: tuple[str, str], inside: Inside) -> bool:
    domain, interface = end
    mark = secrets.token_bytes(MARK)
    packet = result.packet
    if packet is None:
        return False
    with ExitStack() as stack:
        with inside(domain):
            watch = stack.enter_context(Watch(interface))
        with inside(client):
            send(ETH0, frame(packet, VIF_MAC, mark))
        return watch.saw(mark, PATIENCE)

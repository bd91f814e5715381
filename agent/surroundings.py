# SPDX-License-Identifier: GPL-2.0-or-later
"""From what dom0 wrote and what the kernel has, to facts."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from ipaddress import ip_interface

from agent.keys import Settings
from agent.personality import Dns, Personality
from agent.ports import Link, Links
from rules.facts import UNSPECIFIED, Client, Facts, Uplink
from rules.model import Family, family
from rules.remember import LastTime


def facts(
    settings: Settings,
    links: Links,
    dns: Dns,
    personality: Personality,
    held: frozenset[int] = frozenset(),
) -> Facts:
    """Return what is true now.

    A client counts from the moment its vif exists, an uplink from the moment
    its device does; both by interface index, so a re-created device is another.
    ``held`` are those of clients that open no flow (`agent.crowd`).
    """
    return Facts(
        clients=_at(_present(settings.clients, links)),
        uplinks=tuple(_uplinks(settings, links)),
        dns=dns.virtual,
        resolvers=frozenset(dns.own),
        connected=settings.connected,
        internal=personality.internal,
        configured=bool(settings.own),
        here=frozenset(settings.vif_gateways),
        held=held,
        kind=personality.kind,
    )


def _present(wanted: Iterable[Client], links: Links) -> Iterator[tuple[Client, int]]:
    for client in wanted:
        link = links.by_name(client.vif)
        if link is not None:
            yield client, link.index


@LastTime
def _at(client: Client, index: int) -> Client:
    return replace(client, index=index)


def _uplinks(settings: Settings, links: Links) -> Iterator[Uplink]:
    for name in settings.uplinks:
        link = links.by_name(name)
        if link is None:
            continue
        if settings.own:
            yield _configured(link, settings)
        else:
            yield _learned(link, links)


def _configured(link: Link, settings: Settings) -> Uplink:
    on_link = (own.network for own in settings.own)
    return Uplink(
        name=link.name,
        index=link.index,
        own=frozenset(own.ip for own in settings.own),
        networks=frozenset(n for n in on_link if n.prefixlen < n.max_prefixlen),
        gateways=settings.gateways,
    )


def _learned(link: Link, links: Links) -> Uplink:
    found = links.addresses(link.index)
    own = {address for address, _ in found}
    if any(family(address) is Family.IPV6 for address in own):
        # The source of duplicate address detection (RFC 4862, 5.4.2).
        own.add(UNSPECIFIED)
    networks = (ip_interface(f"{address}/{bits}").network for address, bits in found)
    return Uplink(
        name=link.name,
        index=link.index,
        own=frozenset(own),
        networks=frozenset(n for n in networks if n.prefixlen < n.max_prefixlen),
        gateways=links.gateways(link.index),
    )

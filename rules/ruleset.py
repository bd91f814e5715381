# SPDX-License-Identifier: GPL-2.0-or-later
"""Flows and facts in, the contents of every set, map and client chain out."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from rules.carriers import carriers
from rules.facts import UNSPECIFIED, Client, Facts, Gateway, Uplink
from rules.flows import (
    BY_RULES,
    CARRIED,
    FORWARDING,
    NAMES_IN_TUNNEL,
    NAMING,
    OWN_NAMES,
    OWN_TRAFFIC,
    Allowed,
)
from rules.guard import (
    ADDRESSES4,
    ADDRESSES6,
    ADOPTED,
    ARP_CLIENTS,
    CLIENTS4,
    CLIENTS6,
    HERE4,
    NETDEV_GUARD,
    OWN4,
    OWN6,
)
from rules.model import Address, Family, family
from rules.objects import (
    ARP_GUARD,
    GUARD,
    Chain,
    Key,
    Map,
    Object,
    Ruleset,
    Set,
    chain_name,
)
from rules.pace import HELD
from rules.redirects import redirects
from rules.remember import LastTime
from rules.skeleton import INDEXES, OWN, V4, V6, Words

WORDS = {Family.IPV4: V4, Family.IPV6: V6}


def ruleset(allowed: Allowed, facts: Facts) -> Ruleset:
    """Return the contents of all sets and maps, over the constant skeleton.

    The dispatch map names the chain of every client address; the chains
    themselves are the clients' programs (`rules.compile`).
    """
    clients = _senders((client, client.index) for client in facts.clients)
    senders = [sender for each in clients for sender in each]
    present = {
        version: [sender for sender in senders if sender.version is version]
        for version in Family
    }
    content: dict[Key, Object] = dict(_guard(facts, present))
    for version, words in WORDS.items():
        content.update(_switches(words, allowed, facts))
        content.update(_clients(words, present[version]))
    if facts.kind is not Gateway.ROUTER:
        content.update(carriers(allowed, facts))
    if facts.kind is Gateway.PROXY:
        content.update(redirects(allowed, facts))
    return content


def closed(kind: Gateway = Gateway.ROUTER) -> Ruleset:
    """Return the ruleset that lets no client and nothing of its own pass."""
    return ruleset(frozenset(), Facts(kind=kind))


@dataclass(frozen=True, slots=True)
class _Sender:
    """One address of a client, in the words of each set it is in."""

    version: Family
    vif: str
    address: str
    here: str
    framed: str
    verdict: str


@LastTime
def _senders(client: Client, index: int) -> tuple[_Sender, ...]:
    return tuple(
        _Sender(
            version=family(address),
            vif=str(index),
            address=str(address),
            here=f"{index} . {address}",
            framed=f"{index} . {client.mac} . {address}",
            verdict=f"goto {chain_name(address)}",
        )
        for address in client.addresses
    )


def _guard(
    facts: Facts, senders: Mapping[Family, list[_Sender]]
) -> Iterator[tuple[Key, Object]]:
    v4, v6 = senders[Family.IPV4], senders[Family.IPV6]
    framed4 = frozenset(sender.framed for sender in v4)
    framed6 = frozenset(sender.framed for sender in v6)
    mine = (*facts.uplinks, *(w for w in facts.ways if w not in facts.uplinks))
    # Who has no address yet asks whether one is free (RFC 4862, 5.4.2).
    me = facts.here.union(*(u.own for u in mine)) - {UNSPECIFIED}
    known4 = _known(facts, me, Family.IPV4).union(s.address for s in v4)
    known6 = _known(facts, me, Family.IPV6).union(s.address for s in v6)
    here = [(u.index, address) for u in mine for address in u.own]
    own = [(u.index, address) for u in facts.ways for address in u.own]
    yield Key(GUARD, "clients4"), Set(CLIENTS4, framed4)
    yield Key(GUARD, "clients6"), Set(CLIENTS6, framed6)
    yield Key(GUARD, "addresses4"), Set(ADDRESSES4, known4)
    yield Key(GUARD, "addresses6"), Set(ADDRESSES6, known6)
    yield Key(ARP_GUARD, "clients"), Set(ARP_CLIENTS, framed4)
    adopted = frozenset(str(u.index) for u in facts.uplinks if not facts.configured)
    yield Key(GUARD, "here4"), Set(HERE4, _indexed(here, Family.IPV4))
    yield Key(GUARD, "held"), Set(HELD, frozenset(map(str, facts.held)))
    yield Key(NETDEV_GUARD, "adopted"), Set(ADOPTED, adopted)
    yield Key(NETDEV_GUARD, "own4"), Set(OWN4, _indexed(own, Family.IPV4))
    yield Key(NETDEV_GUARD, "own6"), Set(OWN6, _indexed(own, Family.IPV6))


def _known(facts: Facts, me: frozenset[Address], wanted: Family) -> frozenset[str]:
    return _texts(facts.connected, wanted) | _texts(me, wanted)


@lru_cache(maxsize=16)
def _texts(addresses: frozenset[Address], wanted: Family) -> frozenset[str]:
    return frozenset(str(a) for a in addresses if family(a) is wanted)


def _indexed(pairs: list[tuple[int, Address]], wanted: Family) -> frozenset[str]:
    return frozenset(f"{index} . {a}" for index, a in pairs if family(a) is wanted)


def _switches(
    words: Words, allowed: Allowed, facts: Facts
) -> Iterator[tuple[Key, Object]]:
    wanted = Family.IPV4 if words is V4 else Family.IPV6
    ways = frozenset(_indexes(facts.ways, wanted)) if allowed & FORWARDING else ()
    own = dict(_own(allowed, facts, wanted))
    dns = {
        str(virtual): str(real)
        for virtual, real in facts.dns.items()
        if family(virtual) is wanted and allowed & NAMING
    }
    yield Key(words.table, "up"), Set(INDEXES, frozenset(ways))
    yield Key(words.table, "own"), Map(OWN, own)
    yield Key(words.table, "own_in"), Set(INDEXES, frozenset(own))
    yield Key(words.table, "dns"), Map(words.dns, dns)
    yield (
        Key(words.table, "resolvers"),
        Set(words.addresses, _texts(facts.resolvers, wanted)),
    )
    yield Key(words.table, "here"), Set(words.here, _texts(facts.here, wanted))
    yield Key(words.table, "outward"), _outward(words, facts.internal)


def _outward(words: Words, internal: frozenset[str]) -> Chain:
    """Return what is asked about a packet of a client that would leave.

    Each prefix has a rule: a look into a set of ranges takes as long as ten of them.
    """
    inside = (p for p in sorted(internal) if (":" in p) is (words is V6))
    by_rules = f'iif . {words.ip} saddr vmap @clients comment "{BY_RULES.name}"'
    return Chain((*(f"{words.ip} daddr {p} return" for p in inside), by_rules))


def _own(allowed: Allowed, facts: Facts, wanted: Family) -> Iterator[tuple[str, str]]:
    """Yield what this domain itself may send, by interface."""
    chains = (
        (OWN_TRAFFIC, facts.uplinks, "own-traffic"),
        (OWN_NAMES, facts.uplinks, "own-names"),
        (NAMES_IN_TUNNEL, facts.ways, "own-names"),
        (CARRIED, facts.uplinks, "carried"),
    )
    for flow, ways, chain in reversed(chains):
        if flow in allowed:
            yield from ((at, f"goto {chain}") for at in _indexes(ways, wanted))


def _indexes(ways: Iterable[Uplink], wanted: Family) -> Iterator[str]:
    for way in ways:
        if any(family(address) is wanted for address in way.own):
            yield str(way.index)


def _clients(words: Words, senders: list[_Sender]) -> Iterator[tuple[Key, Object]]:
    dispatch = {sender.here: sender.verdict for sender in senders}
    present = frozenset(dispatch)
    vifs = frozenset(sender.vif for sender in senders)
    yield Key(words.table, "clients"), Map(words.clients, dispatch)
    yield Key(words.table, "sources"), Set(words.sources, present)
    yield Key(words.table, "behind"), Set(words.behind, present)
    yield Key(words.table, "vifs"), Set(INDEXES, vifs)

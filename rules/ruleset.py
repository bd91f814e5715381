# SPDX-License-Identifier: GPL-2.0-or-later
"""Flows and facts in, the contents of every set, map and client chain out."""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

from rules.facts import Client, Facts, Uplink
from rules.flows import BY_RULES, CLIENT_DNS, OWN_NAMES, OWN_TRAFFIC, Allowed
from rules.guard import (
    ADDRESSES4,
    ADDRESSES6,
    ARP_CLIENTS,
    CLIENTS4,
    CLIENTS6,
    NETDEV_GUARD,
    OWN4,
    OWN6,
)
from rules.model import Address, Family, family
from rules.objects import (
    ARP_GUARD,
    GUARD,
    Key,
    Map,
    Object,
    Ruleset,
    Set,
    chain_name,
)
from rules.skeleton import INDEXES, OWN, V4, V6, Words

WORDS = {Family.IPV4: V4, Family.IPV6: V6}


def ruleset(allowed: Allowed, facts: Facts) -> Ruleset:
    """Return the contents of all sets and maps, over the constant skeleton.

    The dispatch map names the chain of every client address; the chains
    themselves are the clients' programs (`rules.compile`).
    """
    content: dict[Key, Object] = dict(_guard(facts))
    for words in (V4, V6):
        content.update(_switches(words, allowed, facts))
        content.update(_clients(words, facts))
    return content


def closed() -> Ruleset:
    """Return the ruleset that lets no client and nothing of its own pass."""
    return ruleset(frozenset(), Facts())


def _guard(facts: Facts) -> Iterator[tuple[Key, Object]]:
    v4 = [(c, c.ip) for c in facts.clients]
    v6 = [(c, c.ip6) for c in facts.clients if c.ip6 is not None]
    known = facts.connected.union(*(c.addresses for c in facts.clients))
    own = [(u.index, address) for u in facts.uplinks for address in u.own]
    yield Key(GUARD, "clients4"), Set(CLIENTS4, _senders(v4))
    yield Key(GUARD, "clients6"), Set(CLIENTS6, _senders(v6))
    yield Key(GUARD, "addresses4"), Set(ADDRESSES4, _texts(known, Family.IPV4))
    yield Key(GUARD, "addresses6"), Set(ADDRESSES6, _texts(known, Family.IPV6))
    yield Key(ARP_GUARD, "clients"), Set(ARP_CLIENTS, _senders(v4))
    yield Key(NETDEV_GUARD, "own4"), Set(OWN4, _indexed(own, Family.IPV4))
    yield Key(NETDEV_GUARD, "own6"), Set(OWN6, _indexed(own, Family.IPV6))


def _senders(
    pairs: list[tuple[Client, IPv4Address]] | list[tuple[Client, IPv6Address]],
) -> frozenset[str]:
    return frozenset(f"{c.index} . {c.mac} . {address}" for c, address in pairs)


def _texts(addresses: frozenset[Address], wanted: Family) -> frozenset[str]:
    return frozenset(str(a) for a in addresses if family(a) is wanted)


def _indexed(pairs: list[tuple[int, Address]], wanted: Family) -> frozenset[str]:
    return frozenset(f"{index} . {a}" for index, a in pairs if family(a) is wanted)


def _switches(
    words: Words, allowed: Allowed, facts: Facts
) -> Iterator[tuple[Key, Object]]:
    wanted = Family.IPV4 if words is V4 else Family.IPV6
    usable = [u for u in facts.uplinks if any(family(a) is wanted for a in u.own)]
    indexes = frozenset(str(u.index) for u in usable)
    by_rules = indexes if BY_RULES in allowed else frozenset()
    own = _own(allowed, usable)
    dns = {
        str(virtual): str(real)
        for virtual, real in facts.dns.items()
        if family(virtual) is wanted and CLIENT_DNS in allowed
    }
    yield Key(words.table, "up"), Set(INDEXES, by_rules)
    yield Key(words.table, "own"), Map(OWN, own)
    yield Key(words.table, "own_in"), Set(INDEXES, frozenset(own))
    yield Key(words.table, "dns"), Map(words.dns, dns)
    yield (
        Key(words.table, "resolvers"),
        Set(words.addresses, _texts(facts.resolvers, wanted)),
    )
    internal = frozenset(p for p in facts.internal if (":" in p) is (words is V6))
    yield Key(words.table, "internal"), Set(words.addresses, internal)


def _own(allowed: Allowed, uplinks: list[Uplink]) -> dict[str, str]:
    if OWN_TRAFFIC in allowed:
        verdict = "goto own-traffic"
    elif OWN_NAMES in allowed:
        verdict = "goto own-names"
    else:
        return {}
    return {str(uplink.index): verdict for uplink in uplinks}


def _clients(words: Words, facts: Facts) -> Iterator[tuple[Key, Object]]:
    dispatch: dict[str, str] = {}
    present: set[str] = set()
    for client in facts.clients:
        address = client.ip if words is V4 else client.ip6
        if address is None:
            continue
        sender = f"{client.index} . {address}"
        present.add(sender)
        dispatch[sender] = f"goto {chain_name(address)}"
    yield Key(words.table, "clients"), Map(words.clients, dispatch)
    yield Key(words.table, "sources"), Set(words.sources, frozenset(present))
    yield Key(words.table, "behind"), Set(words.behind, frozenset(present))

# SPDX-License-Identifier: GPL-2.0-or-later
"""A domain whose uplinks carry a daemon's own packets, and nothing else.

What the daemon may send is bound to who sends it: the user it runs as, or the
mark of a tunnel of the kernel's own, together with one endpoint.  A user that is
no more (a socket in TIME_WAIT has none) and a mark without an endpoint match
nothing.  The netdev guard says the same as output, for packet sockets.

A set's key has no more than five fields, which is what nft 1.0.6 can describe.
"""

from collections.abc import Iterable, Iterator

from rules.facts import Carried, Carrier, Facts, Mark, Uid
from rules.flows import CARRIED, FORWARDING, Allowed
from rules.guard import NETDEV_GUARD, OWN4, OWN6
from rules.model import Family, family
from rules.objects import Key, Map, Object, Set
from rules.skeleton import V4, V6, Words

CLAMP = "typeof {} : tcp option maxseg size;"
# Bytes of the IP and TCP headers without options (RFC 9293, 3.7.1).
HEADERS = {Family.IPV4: 40, Family.IPV6: 60}
BY_FAMILY = {Family.IPV4: (V4, "4"), Family.IPV6: (V6, "6")}


def _by_uid(ip: str) -> str:
    return f"typeof meta skuid . {ip} daddr . meta l4proto . th dport;"


def _by_mark(ip: str) -> str:
    return f"typeof meta mark . {ip} daddr . meta l4proto . th dport;"


ANY_BY_UID = "typeof meta skuid . meta l4proto;"


def _sets(table: str, ip: str, suffix: str) -> str:
    return f"""
add set {table} by_uid{suffix} {{ {_by_uid(ip)} }}
add set {table} by_mark{suffix} {{ {_by_mark(ip)} }}
add set {table} any_by_uid{suffix} {{ {ANY_BY_UID} }}"""


def _accepts(ip: str, suffix: str) -> tuple[str, ...]:
    endpoint = f"{ip} daddr . meta l4proto . th dport"
    return (
        f"meta skuid . {endpoint} @by_uid{suffix} accept",
        f"meta mark . {endpoint} @by_mark{suffix} accept",
        f"meta skuid . meta l4proto @any_by_uid{suffix} accept",
    )


def _table(w: Words) -> str:
    t = w.table
    rules = "".join(
        f'\nadd rule {t} carried {rule} comment "{CARRIED.name}"'
        for rule in _accepts(w.ip, "")
    )
    # Explicit sizes: a route's own is that of table main, which clients never see.
    return f"""{_sets(t, w.ip, "")}
add map {t} clamp_out {{ {CLAMP.format("oif")} }}
add map {t} clamp_in {{ {CLAMP.format("iif")} }}
add chain {t} carried
add chain {t} clamp
flush chain {t} carried
flush chain {t} clamp{rules}
insert rule {t} forward tcp flags & (syn | rst) == syn jump clamp
add rule {t} clamp tcp option maxseg size set oif map @clamp_out
add rule {t} clamp tcp option maxseg size set iif map @clamp_in
"""


CARRIER_TEXT = f"""{_table(V4)}{_table(V6)}
add set {NETDEV_GUARD} uplinks4 {{ {OWN4} }}
add set {NETDEV_GUARD} uplinks6 {{ {OWN6} }}\
{_sets(NETDEV_GUARD, "ip", "4")}{_sets(NETDEV_GUARD, "ip6", "6")}
"""
"""The constant part, over the guard and the skeleton."""


def carrier_guard(device: str) -> str:
    """Return the nft text of the egress guard of an uplink of a carrier.

    It is that of `rules.guard.uplink_guard`, for the daemon's packets alone.
    """
    chain = f"{NETDEV_GUARD} egress-{device}"
    rules = "".join(
        f"add rule {chain} oif . {ip} saddr @uplinks{suffix} {rule}\n"
        for ip, suffix in (("ip", "4"), ("ip6", "6"))
        for rule in _accepts(ip, suffix)
    )
    return f"""
add chain {chain} {{ type filter hook egress device "{device}" priority 0; \
policy drop; }}
flush chain {chain}
{rules}add rule {chain} ether type arp oif . arp saddr ip @uplinks4 accept
add rule {chain} counter comment "egress-drop"
"""


def carriers(allowed: Allowed, facts: Facts) -> Iterator[tuple[Key, Object]]:
    """Yield the contents of the sets and maps of `CARRIER_TEXT`."""
    for version, (words, suffix) in BY_FAMILY.items():
        present = [c for c in _carried(allowed, facts) if _concerns(c, version)]
        for table, end in ((words.table, ""), (NETDEV_GUARD, suffix)):
            yield from _contents(table, end, words.ip, present)
        yield from _clamps(words, version, allowed, facts)
        yield Key(NETDEV_GUARD, f"uplinks{suffix}"), _uplinks(facts, version)


def _carried(allowed: Allowed, facts: Facts) -> Iterable[Carried]:
    return facts.carried if CARRIED in allowed else ()


def _concerns(carried: Carried, version: Family) -> bool:
    return carried.endpoint is None or family(carried.endpoint[0]) is version


def _contents(
    table: str, suffix: str, ip: str, present: list[Carried]
) -> Iterator[tuple[Key, Object]]:
    by_uid, by_mark, anywhere = set(), set(), set()
    for carried in present:
        if carried.endpoint is None:
            anywhere.add(f"{_uid(carried.carrier)} . {carried.proto}")
            continue
        address, port = carried.endpoint
        to = f"{address} . {carried.proto} . {port}"
        match carried.carrier:
            case Uid(number):
                by_uid.add(f"{number} . {to}")
            case Mark(number):
                by_mark.add(f"{number:#x} . {to}")
    yield Key(table, f"by_uid{suffix}"), Set(_by_uid(ip), frozenset(by_uid))
    yield Key(table, f"by_mark{suffix}"), Set(_by_mark(ip), frozenset(by_mark))
    yield Key(table, f"any_by_uid{suffix}"), Set(ANY_BY_UID, frozenset(anywhere))


def _uid(carrier: Carrier) -> int:
    match carrier:
        case Uid(number):
            return number
        case Mark():
            # Anybody with CAP_NET_RAW can set a mark.
            raise ValueError("a mark alone carries nothing, expected an endpoint")


def _clamps(
    words: Words, version: Family, allowed: Allowed, facts: Facts
) -> Iterator[tuple[Key, Object]]:
    sizes: dict[str, str] = {}
    if facts.tunnel is not None and allowed & FORWARDING:
        sizes[str(facts.tunnel.index)] = str(facts.tunnel.mtu - HEADERS[version])
    for name, side in (("clamp_out", "oif"), ("clamp_in", "iif")):
        yield Key(words.table, name), Map(CLAMP.format(side), sizes)


def _uplinks(facts: Facts, version: Family) -> Set:
    declaration = OWN4 if version is Family.IPV4 else OWN6
    own = ((u.index, a) for u in facts.uplinks for a in u.own if family(a) is version)
    return Set(declaration, frozenset(f"{index} . {address}" for index, address in own))

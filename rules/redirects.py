# SPDX-License-Identifier: GPL-2.0-or-later
"""Flows of clients that end at a daemon of this domain (Tor).

A client's TCP goes to one port of the daemon, its questions for names to
another, and each client has ports of its own.  Its rules are asked before that,
while the packet still says where it was going; what they refuse never reaches
the daemon, and all that is neither TCP nor a name is forwarded nowhere.

What a client sends to this domain itself at port `SOCKS` is not for its transparent
port: applications that know the daemon speak SOCKS there.  Its rules are asked
about that address and port alone, for only the daemon learns where it goes.
At port `CONTROL` they ask for another identity; the agent answers, never the
daemon, and so also while the daemon carries nobody.

REDIRECT goes to the address of the vif.  To send flows to 127.0.0.1 would take
route_localnet, which opens every service there to clients.
"""

from collections.abc import Iterator, Mapping

from rules.facts import Client, Facts
from rules.flows import CONTROL_PORT, INTO_DAEMON, Allowed
from rules.model import Family, family
from rules.objects import EACH_VIF, Key, Map, Object, chain_name
from rules.skeleton import V4, V6, Words

# A UDP header and one of DNS (RFC 1035, 4.1.1).  tor's DNS server is libevent's,
# whose release 2.1.12 dereferences NULL for less (evdns.c, request_parse): any
# client could end the Tor of all.
SHORTEST = 8 + 12

# A name of an onion service is given an address, for DNS as for SOCKS, which tor keeps
# as long as it runs (MAPADDRESS in its control protocol; connection_edge.c,
# addressmap.c).  One client alone could use up the addresses, and the memory, of all.
NAMES = 20  # a second …
NAMES_AT_ONCE = 1000  # … and so many after a rest of this many seconds:
REST = NAMES_AT_ONCE // NAMES
NAMING = f"{EACH_VIF} timeout {REST}s;"
TOO_MANY = f"""update @naming \
{{ iif limit rate over {NAMES}/second burst {NAMES_AT_ONCE} packets }} \
counter drop comment "too many names\""""

# What a client asks of this domain itself about its address (DHCP) is not judged;
# if it goes elsewhere it is, when it is forwarded.
SOCKS, CONTROL = 9050, 9051  # as tor and everybody who looks for them have them

# Just before dstnat: the ports are still those that the client wrote.
BEFORE_DSTNAT = "dstnat - 1"


def _to(words: Words, field: str) -> str:
    return f"typeof iif . {words.ip} saddr : {field} dport;"


def _table(w: Words) -> str:
    t, sender = w.table, f"iif . {w.ip} saddr"
    return f"""
add map {t} judged {{ {w.clients} }}
add map {t} to_tcp {{ {_to(w, "tcp")} }}
add map {t} to_dns {{ {_to(w, "udp")} }}
add map {t} to_socks {{ {_to(w, "tcp")} }}
add map {t} to_control {{ {_to(w, "tcp")} }}
add set {t} naming {{ {NAMING} }}
add chain {t} judge {{ type filter hook prerouting priority {BEFORE_DSTNAT}; }}
flush chain {t} judge
add rule {t} judge udp sport 68 udp dport 67 return
add rule {t} judge ct direction original meta l4proto {{ tcp, udp }} \
{sender} vmap @judged comment "{INTO_DAEMON.name}"
add rule {t} dstnat udp dport 53 redirect to : {sender} map @to_dns
add rule {t} dstnat tcp dport {SOCKS} fib daddr type local {TOO_MANY}
add rule {t} dstnat tcp dport {SOCKS} fib daddr type local \
redirect to : {sender} map @to_socks
add rule {t} dstnat tcp dport {CONTROL} fib daddr type local \
redirect to : {sender} map @to_control comment "{CONTROL_PORT.name}"
add rule {t} dstnat tcp flags & (fin | syn | rst | ack) == syn \
redirect to : {sender} map @to_tcp
flush chain {t} into-daemon
add rule {t} into-daemon udp length < {SHORTEST} counter drop comment "no question"
add rule {t} into-daemon meta l4proto udp {TOO_MANY}
add rule {t} into-daemon ct status dnat meta l4proto {{ tcp, udp }} accept \
comment "{INTO_DAEMON.name}"
"""


REDIRECT_TEXT = _table(V4) + _table(V6)
"""The constant part, over the skeleton, whose chain ``dstnat`` it adds to."""


def redirects(allowed: Allowed, facts: Facts) -> Iterator[tuple[Key, Object]]:
    """Yield the contents of the maps of `REDIRECT_TEXT`."""
    for words, version in ((V4, Family.IPV4), (V6, Family.IPV6)):
        senders = _senders(facts, version)
        judged = {
            sender: f"goto {chain_name(address)}"
            for sender, client in senders.items()
            for address in client.addresses
            if family(address) is version
        }
        ports = {at: facts.redirects[client.index] for at, client in senders.items()}
        served = ports if INTO_DAEMON in allowed else {}
        asking = ports if CONTROL_PORT in allowed else {}
        yield Key(words.table, "judged"), Map(words.clients, judged)
        for name, protocol, found in (
            ("to_tcp", "tcp", {at: port.tcp for at, port in served.items()}),
            ("to_dns", "udp", {at: port.dns for at, port in served.items()}),
            ("to_socks", "tcp", {at: port.socks for at, port in served.items()}),
            ("to_control", "tcp", {at: port.control for at, port in asking.items()}),
        ):
            there = {at: str(port) for at, port in found.items() if port}
            yield Key(words.table, name), Map(_to(words, protocol), there)


def _senders(facts: Facts, version: Family) -> Mapping[str, Client]:
    """Return the clients that have ports, by what they send from."""
    return {
        f"{client.index} . {address}": client
        for client in facts.clients
        if client.index in facts.redirects
        for address in client.addresses
        if family(address) is version
    }

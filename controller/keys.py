# SPDX-License-Identifier: GPL-2.0-or-later
"""What stands in the QubesDB of every domain, and how to get from old to new.

Sources: ``qubes/vm/qubesvm.py`` (create_qdb_entries), ``qubes/vm/mix/net.py``
(reload_firewall_for_vm, reload_connected_ips), ``doc/vm-interface.rst``.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from itertools import groupby

from controller.addresses import DNS4, MAC, NETMASK
from controller.domains import Domain, Domains, Nic
from rules.decide import alive
from rules.emit import qdb_value
from rules.model import Address, Anywhere, Name, Network, Rule, family

MAX_VALUE = 3071  # bytes, include/qubesdb.h

PERSONALITY = "/ravelin/personality/"
FIREWALL = "/qubes-firewall/"
VIF = "/ravelin/vif/"

Contents = Mapping[str, bytes]


def contents(
    domains: Domains, serials: Mapping[str, int], *, now: int
) -> Mapping[str, Contents]:
    """Return the QubesDB of every domain: path to value.

    ``serials`` has the number of the vif, 1..32752, of each domain that is
    linked at this time; the rules of the others are there all the same, so
    that they stand before the link does.  Rules that have expired by ``now``
    (seconds since the Unix epoch) leave gaps in the numbers.
    """
    return {
        domain.name: dict(_encoded(_of(domain, domains, serials, now)))
        for domain in domains
    }


def resolvers(addresses: Sequence[str]) -> Contents:
    """Return the keys that name a NetVM's resolvers, if dom0 knows them at all.

    There are two keys, so of both IP versions the first is taken.
    """
    first = {":" in address: address for address in reversed(addresses)}
    chosen = (*first.values(), *first.values()) if len(first) == 1 else first.values()
    paths = ("/qubes-primary-dns", "/qubes-secondary-dns")
    return {p: a.encode("ascii") for p, a in zip(paths, chosen, strict=False)}


def asked(words: Mapping[str, str]) -> Contents:
    """Return the keys that ask something of a personality."""
    return {f"{PERSONALITY}{path}": text.encode() for path, text in words.items()}


def next_expiry(domains: Domains, *, now: int) -> int | None:
    """Return when the next rule expires, in seconds since the Unix epoch."""
    times = (rule.expire for domain in domains for rule in domain.policy.rules)
    return min(
        (time for time in times if time is not None and time > now), default=None
    )


def expired(domains: Domains, *, since: int, now: int) -> Iterator[tuple[str, Rule]]:
    """Yield the rules, with the name of their domain, that expired after ``since``."""
    for domain in domains:
        for rule in domain.policy.rules:
            if alive(rule, since) and not alive(rule, now):
                yield domain.name, rule


Pairs = Iterator[tuple[str, str]]


def _encoded(pairs: Pairs) -> Iterator[tuple[str, bytes]]:
    return ((path, value.encode("ascii")) for path, value in pairs)


def _of(
    domain: Domain, domains: Domains, serials: Mapping[str, int], now: int
) -> Pairs:
    if domain.netvm is not None:
        yield from _as_client(domain, domains)
    if not domain.provides_network:
        return
    yield from _as_netvm(domain, domains)
    clients = domains.clients(domain.name)
    for client in clients:
        for address in _addresses(client, domains):
            yield from _rules(client, address, now)
    yield "/connected-ips", _joined(client.ip4 for client in clients)
    yield (
        "/connected-ips6",
        _joined(client.ip6 for client in clients if domains.has_ipv6(client.name)),
    )
    for client in clients:
        if client.name in serials:
            vif = f"vif{serials[client.name]}.0"
            yield VIF + vif, _behind(client, domains)


def _as_client(domain: Domain, domains: Domains) -> Pairs:
    gateway = domains.path(domain.name)[0]
    yield "/qubes-mac", MAC
    yield "/qubes-ip", str(domain.ip4)
    yield "/qubes-netmask", NETMASK
    yield "/qubes-gateway", str(gateway.ip4)
    yield "/qubes-primary-dns", str(DNS4[0])
    yield "/qubes-secondary-dns", str(DNS4[1])
    if domains.has_ipv6(domain.name):
        yield "/qubes-ip6", str(domain.ip6)
        yield "/qubes-gateway6", str(gateway.ip6)


def _as_netvm(domain: Domain, domains: Domains) -> Pairs:
    # Only that it is not empty counts; Qubes writes the gateway here too.
    yield "/qubes-netvm-network", str(domain.ip4)
    yield "/qubes-netvm-gateway", str(domain.ip4)
    yield "/qubes-netvm-netmask", NETMASK
    yield "/qubes-netvm-primary-dns", str(DNS4[0])
    yield "/qubes-netvm-secondary-dns", str(DNS4[1])
    if domains.has_ipv6(domain.name):
        yield "/qubes-netvm-gateway6", str(domain.ip6)
    yield "/ravelin/uplink", _interface(domain)
    for switch in sorted(domain.switches):
        yield f"{PERSONALITY}{switch}", "1"
    for key, text in domain.texts:
        yield f"{PERSONALITY}{key}", text


def _interface(domain: Domain) -> str:
    return domain.uplink.name if isinstance(domain.uplink, Nic) else "eth0"


def _addresses(client: Domain, domains: Domains) -> tuple[Address, ...]:
    if domains.has_ipv6(client.name):
        return (client.ip4, client.ip6)
    return (client.ip4,)


def _rules(client: Domain, address: Address, now: int) -> Pairs:
    base = f"{FIREWALL}{address}"
    for number, rule in enumerate(client.policy.rules):
        if _applies(rule, address, now):
            yield f"{base}/{number:04}", qdb_value(rule)
    yield f"{base}/policy", client.policy.default.value
    yield base, ""


def _applies(rule: Rule, address: Address, now: int) -> bool:
    if not alive(rule, now):
        return False
    match rule.destination:
        case Network(prefix):
            return family(prefix) is family(address)
        case Anywhere() | Name():
            return True


def _joined(addresses: Iterable[IPv4Address | IPv6Address]) -> str:
    """Return as many addresses as one value holds.

    Qubes fails to start the 245th client here.  The agents take attached
    clients from ``/ravelin/vif``, so those beyond the limit lose nothing.
    """
    text = ""
    for address in addresses:
        longer = f"{text} {address}".strip()
        if len(longer) > MAX_VALUE:
            break
        text = longer
    return text


def _behind(client: Domain, domains: Domains) -> str:
    ip6 = f" ip6={client.ip6}" if domains.has_ipv6(client.name) else ""
    return f"mac={MAC} ip={client.ip4}{ip6}"


@dataclass(frozen=True, slots=True)
class Write:
    """Set one key."""

    path: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove one key, or everything under a path that ends in a slash."""

    path: str


Operation = Write | Remove


def changes(old: Contents, new: Contents) -> list[Operation]:
    """Return what turns ``old`` into ``new``, in the order to do it.

    Only what differs is written.  A vif goes before the rules of its client and
    comes after them.  A client whose rules change loses ``policy`` first and
    gets it back last, so a reader in between finds a list that denies; then one
    empty write commits.
    """
    gone = [path for path in old if path not in new]
    wanted = [path for path, value in new.items() if old.get(path) != value]
    operations: list[Operation] = [Remove(p) for p in gone if p.startswith(VIF)]
    for client, paths in groupby(sorted({*gone, *wanted}, key=_client), key=_client):
        if client:
            operations += _client_changes(client, set(paths), old, new)
    operations += [Remove(p) for p in gone if not p.startswith((VIF, FIREWALL))]
    plain = [p for p in wanted if not p.startswith(FIREWALL)]
    plain.sort(key=lambda path: path.startswith(VIF))
    return operations + [Write(path, new[path]) for path in plain]


def _client(path: str) -> str:
    """Return the base key of a path of the rules, else nothing."""
    if not path.startswith(FIREWALL):
        return ""
    return FIREWALL + path.removeprefix(FIREWALL).partition("/")[0]


def _client_changes(
    base: str, paths: set[str], old: Contents, new: Contents
) -> Iterator[Operation]:
    if base not in new:
        yield Remove(f"{base}/")
        yield Remove(base)
        return
    policy = f"{base}/policy"
    if policy in old:
        yield Remove(policy)
    yield from (Remove(path) for path in sorted(paths - new.keys() - {policy}))
    rules = sorted(paths & new.keys() - {policy, base})
    yield from (Write(path, new[path]) for path in rules)
    yield Write(policy, new[policy])
    yield Write(base, new[base])

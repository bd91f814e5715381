# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel does with a client's packets is what `decide` says.

Random lists, compiled, loaded one over the other as differences, and met with
packets from the edges of their rules.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from random import Random

import pytest

import rules.compile
from rules.compile import compile_client
from rules.decide import Packet, decide
from rules.ground import ground
from rules.model import (
    MAX_PORT,
    Action,
    Address,
    AddressRange,
    Anywhere,
    Destination,
    Family,
    Name,
    Network,
    Policy,
    Ports,
    Proto,
    Rule,
    SpecialTarget,
    family,
)
from rules.objects import IP, IP6, Chain, Key, Map, Ruleset, Set, chain_name
from rules.transaction import difference
from tests.kernel.tunnels import Tunnels, tunnels

pytestmark = pytest.mark.kernel

NOW = 0
V4, V6 = Family.IPV4, Family.IPV6
CLIENTS = {V4: ip_address("10.137.0.5"), V6: ip_address("fd09:24ef:4179::a89:5")}
ADDRESS: dict[Family, type[IPv4Address] | type[IPv6Address]] = {
    V4: IPv4Address,
    V6: IPv6Address,
}
TABLES = {V4: IP, V6: IP6}
CENTRES = {
    V4: [
        "0.0.0.0",
        "10.139.1.1",
        "127.255.255.255",
        "198.51.100.77",
        "255.255.255.255",
    ],
    V6: [
        "::",
        "7fff:ffff::ffff",
        "2001:db8:1::77",
        "fd09:24ef:4179::a8b:1",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    ],
}
LENGTHS = {
    V4: [0, 1, 2, 8, 15, 16, 23, 24, 29, 30, 31, 32, 32, 32, 32],
    V6: [0, 1, 2, 16, 32, 63, 64, 65, 112, 126, 127, 128, 128, 128, 128],
}
RESOLVERS = frozenset(
    map(ip_address, ["10.139.1.1", "10.139.1.2", "fd09:24ef:4179::a8b:1"])
)
NAMES = {
    "one.example": frozenset(map(ip_address, ["198.51.100.77", "2001:db8:1::77"])),
    "two.example": RESOLVERS,
}
PORTS = [0, 1, 22, 53, 79, 80, 81, 443, 1024, 32768, MAX_PORT - 1, MAX_PORT]
# Conntrack takes only requests for the first packet of a flow
# (nf_conntrack_proto_icmp.c, nf_conntrack_proto_icmpv6.c).
REQUESTS = {V4: [8, 13, 15, 17], V6: [128, 139]}
ICMP = {V4: 1, V6: 58}
ICMP_TYPES = [0, 3, 8, 8, 13, 17, 128, 139, 255]
OTHER_PROTOCOLS = [2, 4, 41, 47, 50, 89, 132, 253, 254]

# rules in a list, lists, packets for each, settings of the compiler
KINDS: dict[str, tuple[int, int, int, dict[str, int]]] = {
    "short enough to stay a list": (8, 20, 500, {}),
    "compiled": (20, 20, 1000, {"LINEAR": 0}),
    "compiled, long": (500, 4, 1000, {}),
    "compiled in many segments": (60, 12, 1000, {"BUDGET": 80}),
    "compiled in segments of few rules": (60, 12, 1000, {"LENGTH": 7}),
    "compiled in many shards": (60, 12, 1000, {"SHARD": 3}),
}

SAMPLE = Policy(
    (
        Rule(Action.DROP, proto=Proto.TCP, ports=Ports(22, 22)),
        Rule(Action.ACCEPT, Network(ip_network("198.51.100.0/24"))),
        *(
            Rule(Action.ACCEPT, Network(host), Proto.TCP, ports=Ports(443, 443))
            for host in map(ip_network, ["203.0.113.1", "203.0.113.2", "203.0.113.3"])
        ),
        *(
            Rule(Action.ACCEPT, Network(part), Proto.UDP, ports=Ports(5000, 5010))
            for part in ip_network("192.0.2.64/26").subnets(new_prefix=28)
        ),
    )
)
SAMPLE_PACKETS = [
    Packet(dst, proto, port)
    for rule in SAMPLE.rules[1:]
    if isinstance(rule.destination, Network)
    for dst in rule.destination.prefix
    for proto, port in ((6, 22), (6, 443), (17, 5005))
]


def random_network(dice: Random, of: Family) -> AddressRange:
    length = dice.choice(LENGTHS[of])
    near = int(ip_address(dice.choice(CENTRES[of]))) ^ dice.choice([0, 0, 1, 2, 256])
    number = near >> (of.value - length) << (of.value - length)
    return ip_network((ADDRESS[of](number), length))


def random_destination(dice: Random, of: Family) -> Destination:
    match dice.randrange(10):
        case 0:
            return Anywhere()
        case 1:
            return Name(dice.choice(list(NAMES)))
        case 2:
            return Network(random_network(dice, dice.choice([V4, V6])))
        case _:
            return Network(random_network(dice, of))


def random_rule(dice: Random, of: Family) -> Rule:
    action = dice.choice([Action.ACCEPT, Action.ACCEPT, Action.DROP])
    destination = random_destination(dice, of)
    proto = dice.choice([Proto.TCP, Proto.TCP, Proto.UDP, Proto.ICMP, None])
    if proto is Proto.ICMP:
        icmp_type = dice.choice([None, *ICMP_TYPES])
        return Rule(action, destination, proto, icmp_type=icmp_type)
    first, last = sorted(dice.choices(PORTS, k=2))
    ports = [Ports(first, first), Ports(first, last), None]
    if proto is None and dice.random() < 0.8:
        ports.remove(None)
    special = SpecialTarget.DNS if dice.random() < 0.1 else None
    return Rule(action, destination, proto, special, dice.choice(ports))


def random_policy(dice: Random, of: Family, length: int) -> Policy:
    rules = tuple(random_rule(dice, of) for _ in range(length))
    return Policy(rules, dice.choice([Action.DROP, Action.DROP, Action.ACCEPT]))


def near(dice: Random, destination: Destination, of: Family) -> Address:
    """Return an address at an edge of the destination, or within."""
    match destination:
        case Network(prefix) if family(prefix) is of:
            first, last = int(prefix[0]), int(prefix[-1])
        case _:
            first = last = int(ip_address(dice.choice(CENTRES[of])))
    inside = dice.randint(first, last)
    number = dice.choice([first - 1, first, last, last + 1, inside, inside])
    address = ADDRESS[of](number % 2**of.value)
    return near(dice, destination, of) if never_received(address) else address


def never_received(address: Address) -> bool:
    """Whether the kernel drops it before any rule: ip6_rcv_core(), ip6_input.c."""
    of_the_host = address.is_multicast and int(address) >> 112 & 0xE == 0
    return family(address) is V6 and (address.is_loopback or of_the_host)


def random_packet(dice: Random, rule: Rule, of: Family) -> Packet:
    """Return a packet close to what the rule is about."""
    dst = near(dice, rule.destination, of)
    ports = [rule.ports.first, rule.ports.last] if rule.ports else [53, 80]
    port = (
        dice.choice([*ports, dice.choice(PORTS)]) + dice.choice([0, 0, -1, 1])
    ) % 2**16
    match rule.proto or dice.choice([*Proto, None]):
        case Proto.TCP:
            return Packet(dst, 6, port)
        case Proto.UDP:
            return Packet(dst, 17, port)
        case Proto.ICMP:
            return Packet(dst, ICMP[of], icmp_type=dice.choice(REQUESTS[of]))
        case None:
            return Packet(dst, dice.choice(OTHER_PROTOCOLS))


def compiled(policy: Policy, of: Family) -> Ruleset:
    return compile_client(CLIENTS[of], ground(policy, of, NAMES, RESOLVERS, NOW))


def meant(policy: Policy, packet: Packet) -> bool:
    return decide(policy, packet, NAMES, RESOLVERS, NOW).action is Action.ACCEPT


def misjudged(router: Tunnels, policy: Policy, packets: list[Packet]) -> list[Packet]:
    table = TABLES[family(packets[0].dst)]
    verdicts = zip(packets, router.accepted(table, packets), strict=True)
    return [packet for packet, was in verdicts if was is not meant(policy, packet)]


def without_first(objects: Ruleset, place: str) -> Ruleset:
    """Take the first rule or element out of the first object of that kind."""
    prefix = chain_name(CLIENTS[V4]) + place
    key = min((k for k in objects if k.name.startswith(prefix)), key=lambda k: k.name)
    match objects[key]:
        case Chain(rules):
            return {**objects, key: Chain(rules[1:])}
        case Map(declaration, elements):
            left = dict(list(elements.items())[1:])
            return {**objects, key: Map(declaration, left)}
        case Set():
            raise AssertionError(key)


@pytest.fixture
def router() -> Iterator[Tunnels]:
    with tunnels() as found:
        for of, table in TABLES.items():
            entry = Key(table, chain_name(CLIENTS[of]))
            found.apply(difference({}, {entry: Chain(())}))
            found.apply(
                f"add rule {table} forward ct direction original goto {entry.name}"
            )
        yield found


@pytest.mark.parametrize("of", Family, ids=lambda of: of.name)
@pytest.mark.parametrize("kind", KINDS)
def test_every_packet_gets_the_verdict_that_its_rules_mean(
    kind: str, of: Family, router: Tunnels, monkeypatch: pytest.MonkeyPatch
) -> None:
    length, lists, count, settings = KINDS[kind]
    for name, value in settings.items():
        monkeypatch.setattr(rules.compile, name, value)
    dice = Random(f"{kind} {of}")
    loaded: Ruleset | None = None
    seen: set[bool] = set()
    for _ in range(lists):
        policy = random_policy(dice, of, length)
        objects = compiled(policy, of)
        packets = [
            random_packet(dice, dice.choice(policy.rules), of) for _ in range(count)
        ]

        router.apply(difference(loaded, objects))

        assert misjudged(router, policy, packets) == [], policy
        loaded = objects
        seen.update(meant(policy, packet) for packet in packets)
    assert seen == {True, False}


@pytest.mark.parametrize(
    "place",
    [
        pytest.param("_e", id="a point"),
        pytest.param("_m", id="a region"),
        pytest.param("_c", id="a rule of a region"),
        pytest.param("_u", id="an exception"),
    ],
)
def test_a_missing_piece_shows(
    place: str, router: Tunnels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules.compile, "LINEAR", 0)
    objects = compiled(SAMPLE, V4)
    router.apply(difference(None, objects))
    assert misjudged(router, SAMPLE, SAMPLE_PACKETS) == []

    router.apply(difference(objects, without_first(objects, place)))

    assert misjudged(router, SAMPLE, SAMPLE_PACKETS) != []

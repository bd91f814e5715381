# SPDX-License-Identifier: GPL-2.0-or-later
"""Random programs for nf_tables, as text for nft, and packets at their edges."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from random import Random

from tests.kernel.raw_packets import ICMP, ICMPV6, SCTP, TCP, UDP, Raw

PORTS = [0, 1, 22, 53, 79, 80, 81, 443, 1024, 65534, 65535]
MARKS = [0, 1, 2, 0xFF, 0x100, 0xFFFFFFFF]
TOS = [0, 0x10, 0xB8]
FLAGS = [0x02, 0x12, 0x10, 0x04, 0x11, 0]
PROTOCOLS = {
    4: [TCP, TCP, UDP, UDP, ICMP, SCTP, 47, 253],
    6: [TCP, TCP, UDP, UDP, ICMPV6, SCTP, 47, 253],
}
SOURCES = {4: ["10.1.2.3", "10.137.0.5"], 6: ["fd00::1:203", "fd09:24ef:4179::a89:5"]}
TARGETS = {
    4: ["198.51.100.7", "203.0.113.128", "8.8.8.8"],
    6: ["2001:db8::7", "2001:db8:1:8000::", "2a00::8"],
}
CHAINS = 5
SENTINEL = {4: "10.255.255.254", 6: "fd00:ffff::fffe"}


@dataclass(frozen=True, slots=True)
class Words:
    """How one IP version is spelled."""

    version: int

    @property
    def ip(self) -> str:
        return "ip" if self.version == 4 else "ip6"

    @property
    def kind(self) -> str:
        return "ipv4_addr" if self.version == 4 else "ipv6_addr"

    @property
    def bits(self) -> int:
        return 32 if self.version == 4 else 128

    @property
    def icmp(self) -> str:
        return "icmp" if self.version == 4 else "icmpv6"

    def address(self, number: int) -> IPv4Address | IPv6Address:
        return IPv4Address(number) if self.version == 4 else IPv6Address(number)

    def centre(self, dice: Random, of: dict[int, list[str]]) -> int:
        kind = IPv4Address if self.version == 4 else IPv6Address
        return int(kind(dice.choice(of[self.version])))

    def near(self, dice: Random, of: dict[int, list[str]]) -> int:
        return self.centre(dice, of) ^ dice.choice([0, 0, 0, 1, 2, 4, 255, 256])


def prefix(dice: Random, w: Words, of: dict[int, list[str]]) -> str:
    length = dice.choice([w.bits, w.bits, w.bits - 1, w.bits - 8, w.bits - 12, 8, 1])
    number = w.near(dice, of) >> w.bits - length << w.bits - length
    return (
        f"{w.address(number)}/{length}" if length < w.bits else f"{w.address(number)}"
    )


def span(dice: Random, w: Words, of: dict[int, list[str]]) -> str:
    first, last = sorted((w.near(dice, of), w.near(dice, of)))
    return (
        f"{w.address(first)}-{w.address(last)}"
        if first < last
        else f"{w.address(first)}"
    )


def addresses(dice: Random, w: Words) -> str:
    field, of = dice.choice([("saddr", SOURCES), ("daddr", TARGETS)])
    match dice.randrange(4):
        case 0:
            return f"{w.ip} {field} {dice.choice(['', '!= '])}{prefix(dice, w, of)}"
        case 1:
            return f"{w.ip} {field} {span(dice, w, of)}"
        case 2:
            found = {str(w.address(w.near(dice, of))) for _ in range(4)}
            return f"{w.ip} {field} {dice.choice(['', '!= '])}{{ {', '.join(found)} }}"
        case _:
            return f"{w.ip} {field} {dice.choice(['', '!= '])}@{field}s"


def service(dice: Random, w: Words) -> str:
    del w
    first, last = sorted(dice.sample(PORTS, 2))
    what = dice.choice(["th dport", "th sport", "tcp dport", "udp sport", "sctp dport"])
    match dice.randrange(5):
        case 0:
            return f"{what} {first}-{last}"
        case 1:
            return f"{what} != {first}"
        case 2:
            sign = dice.choice(["<", ">", "<=", ">="])
            return f"{what} {sign} {dice.choice(PORTS[2:9])}"
        case 3:
            return f"{what} {{ {first}, {last} }}"
        case _:
            return "meta l4proto { tcp, udp } th dport @ports"


def protocol(dice: Random, w: Words) -> str:
    one, other = dice.sample([TCP, UDP, ICMP, ICMPV6, SCTP, 47], 2)
    return dice.choice(
        [
            f"meta l4proto {one}",
            f"meta l4proto != {one}",
            f"meta l4proto {{ {one}, {other} }}",
            f"{w.icmp} type {dice.choice([0, 1, 8, 128, 129])}",
            f"tcp flags {dice.choice(['syn', 'ack', 'syn,ack', '== syn'])}",
            "tcp flags & (syn|ack|rst) == syn",
            "udp length 16",
            "meta length > 60",
        ]
    )


def header(dice: Random, w: Words) -> str:
    ttl = "ip ttl" if w.version == 4 else "ip6 hoplimit"
    return dice.choice(
        [
            f"{ttl} {dice.choice(['', '!= ', '> '])}63",
            f"{w.ip} dscp {dice.choice(['cs0', 'ef', 'cs1'])}",
        ]
    )


def marked(dice: Random, w: Words) -> str:
    del w
    mark, other = sorted(dice.sample(MARKS, 2))
    return dice.choice(
        [
            f"meta mark {mark}",
            f"meta mark {mark}-{other}",
            f"meta mark & 0xff == {mark & 0xFF}",
            f"meta mark {{ {mark}, {other} }}",
        ]
    )


def interface(dice: Random, w: Words) -> str:
    del w
    return dice.choice(
        [
            'iifname "in*"',
            'iifname != "in0"',
            'oifname "out0"',
            'oifname { "out0", "eth0" }',
            'iif "in0"',
            "iifgroup 2",
            "oifgroup != 1",
            f"meta nfproto {dice.choice(['ipv4', 'ipv6'])}",
        ]
    )


def concatenated(dice: Random, w: Words) -> str:
    keys = {
        "pairs": f"{w.ip} saddr . {w.ip} daddr",
        "services": f"{w.ip} daddr . meta l4proto . th dport",
        "named": f"iifname . {w.ip} saddr",
        "indexed": f"iif . {w.ip} saddr",
    }
    name = dice.choice(list(keys))
    return f"{keys[name]} {dice.choice(['', '!= '])}@{name}"


MATCHES: list[Callable[[Random, Words], str]] = [
    addresses,
    addresses,
    service,
    service,
    protocol,
    header,
    marked,
    marked,
    interface,
    concatenated,
]


def target(dice: Random, place: int) -> str:
    later = [f"c{number}" for number in range(place + 1, CHAINS)]
    words = ["accept", "drop", "return", "continue"]
    words += [f"{verb} {dice.choice(later)}" for verb in ("jump", "goto") if later] * 2
    return dice.choice(words)


def statement(dice: Random, place: int) -> str:
    mark = dice.choice(MARKS)
    setting = dice.choice([f"{mark}", f"mark | {mark & 0xFF}", f"mark & {mark | 0xF0}"])
    match dice.randrange(6):
        case 0:
            return f"meta mark set {setting}"
        case 1:
            return f"meta mark set {setting} {target(dice, place)}"
        case 2:
            return f'counter {target(dice, place)} comment "a comment"'
        case 3 if place:
            return "reject"
        case _:
            return target(dice, place)


def verdict_map(dice: Random, w: Words, place: int) -> str:
    def to() -> str:
        return target(dice, place)

    first, last = sorted(dice.sample(PORTS, 2))
    return dice.choice(
        [
            f"{w.ip} saddr . {w.ip} daddr vmap @by_pair{place}",
            f"{w.ip} daddr . meta l4proto . th dport vmap @by_service{place}",
            f"{w.ip} daddr vmap @by_target{place}",
            f"meta l4proto vmap {{ tcp : {to()}, udp : {to()} }}",
            f"th dport vmap {{ {first} : {to()}, {last} : {to()} }}",
            f"meta mark vmap {{ 0 : {to()}, 1-255 : {to()} }}",
        ]
    )


def rule(dice: Random, w: Words, place: int) -> str:
    found = [dice.choice(MATCHES)(dice, w) for _ in range(dice.choice([0, 1, 1, 2, 3]))]
    last = (
        verdict_map(dice, w, place) if dice.random() < 0.2 else statement(dice, place)
    )
    return " ".join([*found, last])


def elements(
    dice: Random, w: Words, place: int | None, name: str
) -> Iterator[list[str]]:
    """Yield elements to add at once: ranges alone, as they may overlap others."""

    def near(of: dict[int, list[str]]) -> str:
        return str(w.address(w.near(dice, of)))

    makers: dict[str, Callable[[], str]] = {
        "saddrs": lambda: prefix(dice, w, SOURCES),
        "daddrs": lambda: span(dice, w, TARGETS),
        "ports": lambda: f"{dice.choice(PORTS)}",
        "pairs": lambda: f"{near(SOURCES)} . {near(TARGETS)}",
        "services": lambda: (
            f"{prefix(dice, w, TARGETS)} . {dice.choice([6, 17])} . 1-80"
        ),
        "named": lambda: f'"{dice.choice(["in0", "out0"])}" . {near(SOURCES)}',
        "indexed": lambda: f"{dice.choice(['in0', 'out0'])} . {near(SOURCES)}",
        "by_pair": lambda: f"{near(SOURCES)} . {near(TARGETS)}",
        "by_service": lambda: (
            f"{span(dice, w, TARGETS)} . {dice.choice(['6', '17', '0-255'])} . "
            f"{dice.choice(['0-65535', '80', '22-53'])}"
        ),
        "by_target": lambda: prefix(dice, w, TARGETS),
    }
    keys = list(dict.fromkeys(makers[name]() for _ in range(4)))
    texts = [key if place is None else f"{key} : {target(dice, place)}" for key in keys]
    if name in {"services", "by_service", "by_target"}:
        yield from ([text] for text in texts)
    else:
        yield texts


def program(dice: Random, version: int) -> list[str]:
    """Return nft commands: what must load, then what is left out if it does not."""
    w = Words(version)
    table = f"{dice.choice(['inet', w.ip])} fuzz"
    found = [f"add table {table}"]
    found += (f"add chain {table} c{number}" for number in range(1, CHAINS))
    for number, priority in ((0, 0), (9, 10)):
        policy = dice.choice(["accept", "accept", "drop"])
        hook = f"type filter hook forward priority {priority}; policy {policy};"
        found.append(f"add chain {table} c{number} {{ {hook} }}")
        found.append(
            f"add rule {table} c{number} {w.ip} saddr {SENTINEL[version]} accept"
        )
    kinds = {
        "saddrs": f"type {w.kind}; flags interval; auto-merge;",
        "daddrs": f"type {w.kind}; flags interval; auto-merge;",
        "ports": "type inet_service;",
        "pairs": f"type {w.kind} . {w.kind};",
        "services": f"type {w.kind} . inet_proto . inet_service; flags interval;",
        "named": f"type ifname . {w.kind};",
        "indexed": f"type iface_index . {w.kind};",
    }
    maps = {
        "by_pair": f"type {w.kind} . {w.kind} : verdict;",
        "by_service": f"type {w.kind} . inet_proto . inet_service : verdict;"
        " flags interval;",
        "by_target": f"type {w.kind} : verdict; flags interval;",
    }
    optional = []
    for name, kind in kinds.items():
        found.append(f"add set {table} {name} {{ {kind} }}")
        optional += (
            f"add element {table} {name} {{ {', '.join(texts)} }}"
            for texts in elements(dice, w, None, name)
        )
    places = [*range(CHAINS), 9]
    for place in places:
        for name, kind in maps.items():
            found.append(f"add map {table} {name}{place} {{ {kind} }}")
            for texts in elements(dice, w, place, name):
                text = ", ".join(texts)
                optional.append(f"add element {table} {name}{place} {{ {text} }}")
    for place in places:
        rules = [rule(dice, w, place) for _ in range(dice.randrange(3, 10))]
        optional += (f"add rule {table} c{place} {text}" for text in rules)
    return ["\n".join(found), *optional]


def packet(dice: Random, version: int) -> Raw:
    """Return a packet at the edges of what such programs look at."""
    w = Words(version)
    proto = dice.choice(PROTOCOLS[version])
    return Raw(
        w.address(w.near(dice, SOURCES)),
        w.address(w.near(dice, TARGETS)),
        proto,
        dice.choice([0x0800, 0x8000, 0x8100, 0x100])
        if proto in {ICMP, ICMPV6}
        else dice.choice(PORTS),
        dice.choice(PORTS) + dice.choice([0, 0, 0, 1]) & 0xFFFF,
        dice.choice(FLAGS),
        dice.choice([64, 64, 65, 200]),
        dice.choice(TOS),
        dice.choice([0] * 9 + [200]),
        dice.random() < 0.2,
    )

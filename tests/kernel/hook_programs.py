# SPDX-License-Identifier: GPL-2.0-or-later
"""Random programs with base chains at every hook, translation, marks and routes."""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from random import Random

from proof.world import Packet

DEVICES = ("vif5.0", "vif6.0", "eth0", "eth1")
HOOKS = {
    "raw": ("filter", "prerouting", -310),
    "mangle": ("filter", "prerouting", -150),
    "dstnat": ("nat", "prerouting", -100),
    "late": ("filter", "prerouting", -50),
    "first": ("filter", "forward", -10),
    "second": ("filter", "forward", 5),
    "post": ("filter", "postrouting", 50),
    "srcnat": ("nat", "postrouting", 100),
    "last": ("filter", "postrouting", 300),
}
AFTER_ROUTING = frozenset({"first", "second", "post", "srcnat", "last"})
ADDRESSES = {
    4: [IPv4Address("10.9.0.1") + n for n in range(8)]
    + [IPv4Address("198.51.100.1") + n for n in range(8)],
    6: [IPv6Address("fd01::1") + n for n in range(8)]
    + [IPv6Address("2001:db8:5::1") + n for n in range(8)],
}
OWN = {4: "192.0.2.1", 6: "2001:db8::1"}
STATES = ("new", "invalid", "untracked", "established")
PORTS = (53, 80, 443, 1000)


@dataclass(frozen=True, slots=True)
class Words:
    """Random words of rules for one IP version."""

    dice: Random
    version: int

    @property
    def ip(self) -> str:
        return "ip" if self.version == 4 else "ip6"

    @property
    def time(self) -> str:
        return "ttl" if self.version == 4 else "hoplimit"

    def address(self) -> str:
        return str(self.dice.choice(ADDRESSES[self.version]))

    def prefix(self) -> str:
        first = self.dice.choice(ADDRESSES[self.version])
        top = first.max_prefixlen
        length = self.dice.choice([top - 3, top - 2, top - 1, top, top])
        number = int(first) >> (top - length) << (top - length)
        return f"{type(first)(number)}/{length}"

    def match(self, hook: str) -> str:
        dice = self.dice
        words = [
            f"iifname {dice.choice(DEVICES)}",
            f"{self.ip} saddr {self.prefix()}",
            f"{self.ip} daddr {self.prefix()}",
            f"udp dport {dice.choice(PORTS)}",
            f"tcp dport {dice.choice(PORTS)}-{dice.choice([1000, 2000])}",
            f"th dport {{ {dice.choice(PORTS)}, {dice.choice(PORTS)} }}",
            f"meta mark {dice.randrange(4)}",
            f"meta mark & 1 == {dice.randrange(2)}",
            f"{self.ip} {self.time} {dice.choice([63, 64])}",
            "meta l4proto udp",
        ]
        if hook != "raw":
            words += [
                f"ct state {dice.choice(STATES)}",
                "ct direction original",
                f"ct mark {dice.randrange(3)}",
                "ct status & dnat != 0",
                f"ct original {self.ip} daddr {self.prefix()}",
            ]
        else:
            words.append("ct state invalid")
        if hook in AFTER_ROUTING:
            words += [f"oifname {dice.choice(DEVICES)}"] * 3
        if hook in {"raw", "mangle", "late"}:
            words.append("fib daddr . iif type local")
        return dice.choice(words)

    def action(self, hook: str) -> str:
        dice = self.dice
        if hook == "dstnat" and dice.random() < 0.7:
            to = self.address()
            port = f":{dice.choice(PORTS)}"
            plain = [f"dnat {self.ip} to {to}", "redirect"]
            if dice.random() < 0.5:
                bare = to if self.version == 4 else f"[{to}]"
                both = f"meta l4proto {{ tcp, udp }} dnat {self.ip} to {bare}{port}"
                plain.append(both)
            return dice.choice(plain)
        if hook == "srcnat" and dice.random() < 0.7:
            return dice.choice(["masquerade", f"snat {self.ip} to {self.address()}"])
        words = ["accept", "drop", "drop", "return", f"jump sub-{hook}"]
        words += [f"meta mark set {dice.randrange(4)}"] * 3
        if hook != "raw":
            words.append(f"ct mark set {dice.randrange(3)}")
        else:
            words.append("notrack")
        return dice.choice(words)

    def rule(self, hook: str) -> str:
        matches = " ".join(self.match(hook) for _ in range(self.dice.choice([1, 1, 2])))
        return f"{matches} {self.action(hook)}"


def program(dice: Random, version: int) -> Iterator[str]:
    """Yield commands; some may be refused, all but the first."""
    w = Words(dice, version)
    table = dice.choice(["inet", w.ip]) + " fuzz"
    hooks = [name for name in HOOKS if dice.random() < 0.75]
    first = [f"add table {table}"]
    for name in hooks:
        kind, hook, priority = HOOKS[name]
        policy = "drop" if dice.random() < 0.08 and kind == "filter" else "accept"
        first.append(
            f"add chain {table} {name} {{ type {kind} hook {hook}"
            f" priority {priority}; policy {policy}; }}"
        )
        first.append(f"add chain {table} sub-{name}")
    yield "\n".join(first)
    for name in hooks:
        for _ in range(dice.randrange(1, 5)):
            yield f"add rule {table} {name} {w.rule(name)}"
        for _ in range(2):
            rule = w.rule(name).replace(f"jump sub-{name}", "return")
            yield f"add rule {table} sub-{name} {rule}"
    if dice.random() < 0.5:
        device = dice.choice(DEVICES)
        yield (
            "add table netdev fuzz\nadd chain netdev fuzz out { type filter hook egress"
            f' device "{device}" priority 0; }}\n'
            f"add rule netdev fuzz out {w.ip} saddr {w.prefix()} drop\n"
            f"add rule netdev fuzz out meta mark {dice.randrange(4)} drop"
        )


def routes(dice: Random, version: int) -> Iterator[tuple[str, str]]:
    """Yield commands of ip(8) and what takes them back."""
    w = Words(dice, version)
    for number in range(dice.randrange(0, 4)):
        table = dice.choice(["254", "100", "101"])
        to = dice.choice([w.prefix(), w.prefix(), "default"])
        what = dice.choice([f"dev {dice.choice(DEVICES)}"] * 4 + ["unreachable"])
        if "dev" in what:
            line = f"{to} {what} table {table} metric {number + 2}"
        else:
            line = f"{what} {to} table {table} metric {number + 2}"
        yield f"route add {line}", f"route del {line}"
    for number in range(dice.randrange(0, 3)):
        by = dice.choice(
            [
                f"fwmark {dice.randrange(4)}/{dice.choice([1, 3])}",
                f"iif {dice.choice(DEVICES)}",
                f"from {w.prefix()}",
                f"to {w.prefix()}",
                f"not from {w.prefix()}",
            ]
        )
        does = dice.choice(["lookup 100", "lookup 101", "lookup 100", "prohibit"])
        line = f"pref {50 + number} {by} {does}"
        yield f"rule add {line}", f"rule del {line}"


def packet(dice: Random, version: int, port: int) -> tuple[str, Packet]:
    """Return a packet, the first of its flow, and where it comes in."""
    source, target = dice.sample(ADDRESSES[version], 2)
    proto = dice.choice([6, 17, 17])
    reset = proto == 6 and dice.random() < 0.3
    counted = "network header byte 8" if version == 4 else "network header byte 7"
    told = {counted: dice.choice([64, 64, 65, 2, 1])}
    if proto == 6:
        told["transport header byte 13"] = 4 if reset else 2
    state = 5 if reset else 0
    there = dice.choice(PORTS)
    found = Packet(source, target, proto, port, there, state=state, fields=told)
    return dice.choice(DEVICES), found

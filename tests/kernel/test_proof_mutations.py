# SPDX-License-Identifier: GPL-2.0-or-later
"""What is changed behind the controller's back is found, if it changes anything.

Rules, elements, routes, routing rules and settings of a whole domain are deleted,
added or turned around at random.  Real packets are the judge: whenever one of a
battery fares otherwise than before, a claim is broken and has a packet for it;
and each packet that is said to break one does so in the kernel.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_network
from itertools import product
from pathlib import Path
from random import Random

import pytest

from proof import snapshot
from proof.bytecode import Family as Table
from proof.claims import Claim, Result, Status, implied
from proof.verify import Prover
from proof.world import Packet
from rules.guard import GUARD_TEXT, uplink_guard
from rules.objects import Chain, Map, Object, Set
from rules.pace import USUAL, pace
from rules.skeleton import SKELETON_TEXT
from rules.transaction import difference
from tests.kernel.proof_lab import (
    APART,
    CLIENTS,
    KNOWN,
    OWN,
    SERVERS,
    UPLINKS,
    VIFS,
    Lab,
    domain,
    ip,
    lists,
    whole,
)

pytestmark = pytest.mark.kernel

BATCHES, MUTATIONS = 10, 32
PEERS = tuple(ip_network(a) for both in CLIENTS.values() for a in both)
RST, SYN = 4, 2
FLAGS = "transport header byte 13"
OURS = ("qubes", "ravelin-guard")
OTHER = {4: Table.IP6, 6: Table.IP}
NAMES = {Table.IP6: "ip6 ", Table.IP: "ip "}
LOOSE = (
    "accept",
    "drop",
    "return",
    "meta l4proto tcp accept",
    "meta l4proto udp accept",
    "iifname eth0 accept",
    "oifname eth1 drop",
    "tcp dport 443 drop",
    "udp dport 53 drop",
    "ct state invalid accept",
    "counter",
)
SYSCTLS = (
    *(f"ipv4/conf/{name}/forwarding" for name in (*VIFS, "eth0")),
    "ipv6/conf/all/forwarding",
    "ipv4/conf/eth0/rp_filter",
    "ipv4/conf/vif5.0/rp_filter",
    "ipv4/conf/all/route_localnet",
    "ipv6/conf/vif6.0/disable_ipv6",
)


def battery(version: int) -> list[tuple[str, Packet]]:
    """Return packets of all kinds, each with the device it comes in by."""
    place = 0 if version == 4 else 1
    sources = [*(both[place] for both in CLIENTS.values()), *SERVERS[version]]
    targets = [*sources, OWN["eth0"][place]]
    kinds = [(6, 443, SYN), (6, 22, SYN), (17, 53, 0), (17, 80, 0), (6, 443, RST)]
    found = []
    for into in (*VIFS, *UPLINKS):
        for source, target, (proto, port, flags) in product(sources, targets, kinds):
            usual = into in CLIENTS and source == CLIENTS[into][place]
            known = into in UPLINKS and source == sources[2] and target in sources[:2]
            rare = (proto, port) in {(6, 443), (17, 53)} and flags != RST
            if source != target and (usual or known or (rare and target == targets[3])):
                packet = Packet(source, target, proto, 0, port, fields={FLAGS: flags})
                found.append((into, packet))
    return found


@dataclass(slots=True)
class Judge:
    """Sends the battery; each packet is the first of a flow."""

    lab: Lab
    port: int = 1024

    def passed(self, version: int) -> list[bool]:
        return [self.passes(into, packet) for into, packet in battery(version)]

    def passes(self, into: str, packet: Packet) -> bool:
        self.port += 1
        if packet.protocol in {6, 17}:
            packet = replace(packet, first=self.port)
        if packet.protocol in {1, 58}:  # the identifier
            high, low = divmod(self.port, 256)
            told = {"transport header byte 4": high, "transport header byte 5": low}
            packet = replace(packet, fields={**packet.fields, **told})
        return self.lab.through(into, packet) is not None


@contextmanager
def anew(lab: Lab, dice: Random, version: int) -> Iterator[str]:
    """Change one thing, and put it back afterwards; give what was changed."""
    change = dice.choice([*[rule] * 4, *[element] * 4, route, routing_rule, setting])
    what, undo = change(lab, dice, version)
    try:
        yield what
    finally:
        undo()


Undo = Callable[[], None]


def restore(lab: Lab) -> None:
    lab.apply(SKELETON_TEXT + GUARD_TEXT + pace(USUAL) + KNOWN)
    lab.apply("".join(map(uplink_guard, UPLINKS)))
    lab.apply(difference(None, whole(lab.index)))


def rule(lab: Lab, dice: Random, version: int) -> tuple[str, Undo]:
    """Delete a rule, or put one before it."""
    chains = snapshot.here().bytecode.chains
    rules = [
        (place, one)
        for place, chain in sorted(chains.items())
        if place.table in OURS and place.family not in {Table.ARP, OTHER[version]}
        for one in chain.rules
    ]
    place, one = dice.choice(rules)
    chain = f"{Table(place.family).name.lower()} {place.table} {place.name}"
    what = f"delete rule {chain} handle {one.handle}"
    if dice.random() < 0.4:
        words = dice.choice(LOOSE)
        what = f"insert rule {chain} position {one.handle} {words}"
    if lab.nft.cmd(what)[0]:
        return rule(lab, dice, version)  # an egress chain knows no conntrack
    return f"{what} ({one.comment})", lambda: restore(lab)


def element(lab: Lab, dice: Random, version: int) -> tuple[str, Undo]:
    """Delete an element of a set or map, or add one of another place."""
    objects = {
        key: content
        for key, content in whole(lab.index).items()
        if not isinstance(content, Chain)
        and elements(content)
        and not key.table.startswith(("arp", NAMES[OTHER[version]]))
    }
    key = dice.choice(sorted(objects, key=str))
    texts = elements(objects[key])
    one = dice.choice(texts)
    what = f"delete element {key.table} {key.name} {{ {one.partition(' : ')[0]} }}"
    if dice.random() < 0.4:
        other = swapped(lab, dice, one)
        what = f"add element {key.table} {key.name} {{ {other} }}"
    if lab.nft.cmd(what)[0]:
        return element(lab, dice, version)  # it is there already, or overlaps
    return what, lambda: restore(lab)


def elements(content: Object) -> list[str]:
    match content:
        case Set(_, found):
            return sorted(found)
        case Map(_, known):
            return [f"{name} : {value}" for name, value in sorted(known.items())]
        case Chain():
            return []


def swapped(lab: Lab, dice: Random, text: str) -> str:
    """Return an element for another interface."""
    index, _, rest = text.partition(" ")
    other = lab.index[dice.choice([*VIFS, *UPLINKS])]
    return f"{other} {rest}".strip() if index.isdigit() else text


def route(lab: Lab, dice: Random, version: int) -> tuple[str, Undo]:
    del lab
    v4, v6 = CLIENTS[dice.choice(VIFS)]
    choices = [
        (4, f"{v4} dev vif5.0 table 10137 metric 1"),
        (6, f"{v6} dev vif6.0 table 10137 metric 1"),
        (4, "198.51.100.0/24 dev eth1 table 10139 metric 1"),
        (6, "2001:db8:1::/48 dev vif6.0 table 10139 metric 1"),
        (4, "blackhole 198.51.100.0/25 table 10139"),
        (4, "unreachable 203.0.113.0/24 table 10137"),
    ]
    line = dice.choice([line for of, line in choices if of == version])
    ip(f"route add {line}", version=version)
    undo = f"route del {line}"
    return f"route add {line}", lambda: ip(undo, version=version)


def routing_rule(lab: Lab, dice: Random, version: int) -> tuple[str, Undo]:
    del lab
    choices = [
        "pref 90 lookup 10137",
        "pref 110 iif eth0 unreachable",
        "pref 120 lookup 10139",
        "pref 121 unreachable",
    ]
    if dice.random() < 0.5:
        line = dice.choice(choices)
        ip(f"rule del {line}", version=version)
        undo = f"rule add {line}"
        return f"IPv{version} rule del {line}", lambda: ip(undo, version=version)
    line = dice.choice(
        ["pref 50 iif eth0 lookup 10139", "pref 50 iif vif5.0 prohibit", "pref 60"]
    )
    line += " unreachable" if line == "pref 60" else ""
    ip(f"rule add {line}", version=version)
    return f"IPv{version} rule add {line}", lambda: ip(
        f"rule del {line}", version=version
    )


def setting(lab: Lab, dice: Random, version: int) -> tuple[str, Undo]:
    del lab
    name = dice.choice([name for name in SYSCTLS if name[3] == str(version)])
    path = Path("/proc/sys/net", name)
    before = path.read_text().strip()
    path.write_text("1" if before == "0" else "0")
    return f"{name} was {before}", lambda: put_back(path, before)


def put_back(path: Path, before: str) -> None:
    path.write_text(before)
    if path.name == "disable_ipv6" and before == "0":
        # Turning it off takes addresses and routes away.
        v4, v6 = CLIENTS["vif6.0"]
        del v4
        ip(f"route replace {v6} dev vif6.0 table 10137 metric {METRIC}", version=6)


METRIC = 32752 + 1 - 6


@pytest.fixture
def lab() -> Iterator[Lab]:
    with domain() as found:
        yield found


def proved(lab: Lab, version: int, prover: Prover) -> list[Result]:
    """Return the claims that do not hold; ``prover`` may know an earlier domain."""
    world = lab.world()
    claims: list[Claim] = list(implied(world, lists(), APART, never=PEERS))
    found = prover.prove(world, claims, (version,))
    return [result for result in found if result.status is not Status.PROVED]


def told(results: list[Result]) -> set[tuple[str, Status]]:
    return {(str(result.claim), result.status) for result in results}


@pytest.mark.parametrize("batch", range(BATCHES))
def test_each_change_that_matters_is_found_and_no_other(batch: int, lab: Lab) -> None:
    dice = Random(f"mutations {batch}")
    judge = Judge(lab)
    version = 4 if batch % 2 else 6
    remembering = Prover()
    assert proved(lab, version, remembering) == []
    usual = judge.passed(version)
    assert set(usual) == {True, False}
    seen: Counter[str] = Counter()
    for _ in range(MUTATIONS):
        with anew(lab, dice, version) as what:
            results = proved(lab, version, remembering)
            if seen["all"] % 4 == 0:
                assert told(proved(lab, version, Prover())) == told(results), what
            now = judge.passed(version)
            for result in results:
                assert result.status is not Status.UNKNOWN, (what, result)
                seen[result.status.value] += 1
                if result.status is Status.REFUTED:
                    assert real(judge, result), (what, result)
            if now != usual:
                seen["changed"] += 1
                assert any(r.packet for r in results), (
                    what,
                    differing(version, usual, now),
                )
        seen["all"] += 1
    assert proved(lab, version, remembering) == []
    assert judge.passed(version) == usual
    assert seen["changed"] >= 2
    assert seen["refuted"] >= seen["changed"]


def real(judge: Judge, result: Result) -> bool:
    """Return whether the kernel does to the packet what the proof says."""
    assert result.packet is not None
    assert result.hops
    passes = judge.passes(result.came_by, result.packet)
    return passes is (result.hops[-1].verdict == "sent")


def differing(
    version: int, usual: list[bool], now: list[bool]
) -> list[tuple[str, Packet, bool]]:
    return [
        (*battery(version)[place], after)
        for place, (before, after) in enumerate(zip(usual, now, strict=True))
        if before is not after
    ]

# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine agrees with the kernel on the whole ruleset of a domain.

Between a vif and an uplink: first packets, replies, packets of no flow, packets
that are translated, with all of our tables loaded and parts of the contents of
their sets missing.
"""

import ctypes
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from random import Random

import nftables
import pytest

from proof import fields, snapshot
from proof.bytecode import Family as Table
from proof.bytecode import Place
from proof.explore import value_at
from proof.machine import Machine
from proof.outcome import End, Env, Outcome
from proof.values import ImageByte, Value
from rules.compile import compile_client
from rules.facts import Client, Facts, Uplink
from rules.flows import BY_RULES, CLIENT_DNS
from rules.ground import ground
from rules.guard import GUARD_TEXT
from rules.model import Action, Family, Policy, Ports, Proto, Rule
from rules.objects import Key, Map, Object, Ruleset, Set
from rules.pace import USUAL, pace
from rules.ruleset import ruleset
from rules.skeleton import SKELETON_TEXT
from rules.transaction import difference
from tests.kernel.raw_packets import TCP, UDP, Raw, number_of
from tests.kernel.tunnels import _CLONE_NEWNET, _device

pytestmark = pytest.mark.kernel

VIF, UPLINK = "vif5.0", "eth0"
CLIENT = {4: "10.137.0.5", 6: "fd09:24ef:4179::a89:5"}
STRANGER = {4: "10.137.0.6", 6: "fd09:24ef:4179::a89:6"}
OWN = {4: "192.0.2.1", 6: "2001:db8::1"}
SERVERS = {4: ["198.51.100.7", "203.0.113.9"], 6: ["2001:db8:1::7", "2a00::9"]}
VIRTUAL, REAL = (
    {4: "10.139.1.1", 6: "fd09:24ef:4179::a8b:1"},
    {4: "198.51.100.53", 6: "2001:db8:1::53"},
)
LINKS = f"""
link set lo up
link set {VIF} txqueuelen 5000 group 2 up
link set {UPLINK} txqueuelen 5000 group 1 up
address add {OWN[4]}/32 dev {UPLINK}
address add {OWN[6]}/128 dev {UPLINK} nodad
route add 10.137.0.0/24 dev {VIF}
route add fd09:24ef:4179::a89:0/112 dev {VIF}
route add default dev {UPLINK}
route add ::/0 dev {UPLINK}
"""
SETTINGS = {
    "ipv4/ip_forward": "1",
    "ipv4/conf/all/rp_filter": "0",
    f"ipv4/conf/{VIF}/rp_filter": "0",
    "ipv6/conf/all/forwarding": "1",
    "netfilter/nf_conntrack_checksum": "0",
}
POLICY = Policy(
    (
        Rule(Action.DROP, proto=Proto.UDP, ports=Ports(80, 80)),
        Rule(Action.ACCEPT, proto=Proto.UDP, ports=Ports(53, 443)),
        Rule(Action.ACCEPT, proto=Proto.TCP, ports=Ports(443, 443)),
        Rule(Action.ACCEPT, proto=Proto.ICMP, icmp_type=8),
    )
)
# TUN frames have no Ethernet header, so the guard's tables cannot know senders.
KNOWN = "\n".join(
    f"insert rule inet ravelin-guard from-vif {ip} saddr {CLIENT[v]} return"
    for ip, v in (("ip", 4), ("ip6", 6))
)
TABLES = {4: Table.IP, 6: Table.IP6}
GUARD = "ravelin-guard"
FORWARD = ((GUARD, "forward"), ("qubes", "forward"))
UNMARKED = Env(mark=(0, 0, 0, 0))
STATUS, DNAT = "ct status", 0x20  # IPS_DST_NAT
FIB, UNICAST, LOCAL = "fib 3 10", 1, 2  # of type: RTN_UNICAST, RTN_LOCAL
BOTH = (True, False)


@dataclass(slots=True)
class Domain:
    """A domain between a vif and an uplink, and libnftables in it."""

    vif: int
    uplink: int
    nft: nftables.Nftables
    index: dict[str, int]
    loaded: Ruleset | None = None

    def apply(self, script: str) -> None:
        code, _, error = self.nft.cmd(script)
        assert code == 0, error

    def load(self, wanted: Ruleset) -> None:
        self.apply(difference(self.loaded, wanted))
        self.loaded = wanted

    def through(self, into: int, out: int, raw: bytes) -> bytes | None:
        """Send a packet; return it as it came out of the other side."""
        os.write(into, raw)
        number = number_of(raw)
        found = [data for data in read_all(out) if number_of(data) == number]
        list(read_all(into))
        return found[0] if found else None


def read_all(device: int) -> Iterator[bytes]:
    with suppress(BlockingIOError):
        while True:
            yield os.read(device, 4096)


@pytest.fixture
def domain() -> Iterator[Domain]:
    libc = ctypes.CDLL(None, use_errno=True)
    with ExitStack() as stack:
        home = os.open("/proc/self/ns/net", os.O_RDONLY)
        stack.callback(os.close, home)
        assert libc.unshare(_CLONE_NEWNET) == 0
        stack.callback(libc.setns, home, _CLONE_NEWNET)
        vif, uplink = _device(VIF), _device(UPLINK)
        stack.callback(os.close, vif)
        stack.callback(os.close, uplink)
        for setting, value in SETTINGS.items():
            Path("/proc/sys/net", setting).write_text(value)
        subprocess.run(["ip", "-batch", "-"], input=LINKS, text=True, check=True)
        index = {link.name: link.index for link in snapshot.here().routing.links}
        found = Domain(vif, uplink, nftables.Nftables(), index)
        found.apply(SKELETON_TEXT + GUARD_TEXT + pace(USUAL) + KNOWN)
        yield found


def whole(index: dict[str, int]) -> Ruleset:
    """Return all our objects for one client and one uplink."""
    v4, v6 = IPv4Address(CLIENT[4]), IPv6Address(CLIENT[6])
    facts = Facts(
        clients=(Client(VIF, index[VIF], "00:16:3e:5e:6c:00", v4, v6),),
        uplinks=(
            Uplink(UPLINK, index[UPLINK], frozenset(map(ip_address, OWN.values()))),
        ),
        dns={ip_address(VIRTUAL[v]): ip_address(REAL[v]) for v in (4, 6)},
        connected=frozenset({ip_address(STRANGER[4]), ip_address(STRANGER[6])}),
        internal=frozenset({"203.0.113.9/32", "2a00::/16"}),
    )
    found: dict[Key, Object] = dict(ruleset(frozenset({BY_RULES, CLIENT_DNS}), facts))
    for address, of in ((v4, Family.IPV4), (v6, Family.IPV6)):
        resolvers = frozenset({ip_address(VIRTUAL[4]), ip_address(VIRTUAL[6])})
        found.update(compile_client(address, ground(POLICY, of, {}, resolvers, 0)))
    return found


def thinned(dice: Random, objects: Ruleset) -> Ruleset:
    """Empty some sets and maps of the tables of clients."""
    names = ["up", "clients", "sources", "behind", "dns"]
    gone = {name for name in names if dice.random() < 0.12}
    return {
        key: emptied(content) if key.name in gone else content
        for key, content in objects.items()
    }


def emptied(content: Object) -> Object:
    match content:
        case Set():
            return replace(content, elements=frozenset())
        case Map():
            return replace(content, elements={})
        case _:
            raise AssertionError(content)


@dataclass(frozen=True, slots=True)
class Judge:
    """What the machine says of one packet on its way to postrouting."""

    machine: Machine
    version: int

    def passes(self, point: dict[str, int], *chains: tuple[str, str]) -> bool:
        for table, name in chains:
            of = Table.INET if table == GUARD else TABLES[self.version]
            result = self.machine.hooked(Place(of, table, name), UNMARKED)
            outcome = value_at(self.machine.space, result, point)
            assert isinstance(outcome, Outcome)
            if outcome.end is not End.ACCEPT:
                return False
            for nat in outcome.env.nat:
                point[fields.DST] = self._number(nat.address or (), point)
                point[STATUS] |= DNAT
        return True

    def _number(self, value: Value, point: dict[str, int]) -> int:
        found = 0
        for atom in value:
            assert isinstance(atom, ImageByte)
            data = value_at(self.machine.space, atom.image, point)
            assert isinstance(data, bytes)
            found = found << 8 | data[atom.at]
        return found


def from_client(dice: Random, version: int) -> tuple[Raw, int]:
    """Return a packet of the client's side, and its state for conntrack."""
    src = CLIENT[version] if dice.random() < 0.9 else STRANGER[version]
    dst = dice.choice([*SERVERS[version], VIRTUAL[version]])
    proto, flags, state = dice.choice(
        [
            (UDP, 0, fields.NEW),
            (UDP, 0, fields.NEW),
            (TCP, 0x02, fields.NEW),
            (TCP, 0x00, fields.INVALID),
        ]
    )
    port, there = dice.randrange(1024, 65536), dice.choice([53, 53, 80, 443, 444])
    return Raw(ip_address(src), ip_address(dst), proto, port, there, flags), state


def answer_to(out: bytes) -> Raw:
    """Return an answer to a UDP packet that came out of the uplink."""
    at = 20 if out[0] >> 4 == 4 else 40
    src, dst = (out[12:16], out[16:20]) if at == 20 else (out[8:24], out[24:40])
    sport, dport = out[at : at + 2], out[at + 2 : at + 4]
    return Raw(
        ip_address(dst),
        ip_address(src),
        UDP,
        int.from_bytes(dport, "big"),
        int.from_bytes(sport, "big"),
    )


def first_passes(judge: Judge, domain: Domain, raw: Raw, state: int) -> bool:
    """Return whether the machine lets a first packet of the client through."""
    point = raw.point(domain.index[VIF], domain.index[UPLINK])
    point |= {fields.CT: state, STATUS: 0, FIB: UNICAST}
    translating = [("qubes", "dstnat")] if state == fields.NEW else []
    return judge.passes(point, (GUARD, "prerouting"), *translating, *FORWARD)


def answer_passes(judge: Judge, domain: Domain, first: Raw, answer: Raw) -> bool:
    """Return whether the machine lets the answer to a first packet through."""
    point = answer.point(domain.index[UPLINK], 0) | {FIB: LOCAL}
    if not judge.passes(point, (GUARD, "prerouting")):
        return False
    # Conntrack has undone what was translated.
    back = replace(answer, src=first.dst, dst=first.src)
    point = back.point(domain.index[UPLINK], domain.index[VIF])
    point |= {
        fields.CT: fields.ESTABLISHED_REPLY,
        fields.ORIGINAL_DST: int(first.dst),
        STATUS: 0,
    }
    return judge.passes(point, *FORWARD)


@pytest.mark.parametrize("version", [4, 6])
def test_flows_pass_as_the_machine_says(version: int, domain: Domain) -> None:
    dice = Random(version)
    objects = whole(domain.index)
    seen: Counter[tuple[str, bool]] = Counter()
    number = 0
    for round_ in range(40):
        # Before the answers come, some sets lose their contents once more.
        first = objects if round_ % 2 else thinned(dice, objects)
        domain.load(first)
        before = judged(version)
        waiting: list[tuple[Raw, Raw]] = []
        for _ in range(25):
            number += 1
            raw, state = from_client(dice, version)
            out = domain.through(domain.vif, domain.uplink, raw.packed(number))
            says = first_passes(before, domain, raw, state)
            assert (out is not None) is says, (raw, state, sorted_gone(first))
            seen["first", says] += 1
            if out is not None and raw.proto == UDP:
                waiting.append((raw, answer_to(out)))
        domain.load(thinned(dice, objects))
        after = judged(version)
        for raw, answer in waiting:
            number += 1
            out = domain.through(domain.uplink, domain.vif, answer.packed(number))
            says = answer_passes(after, domain, raw, answer)
            assert (out is not None) is says, answer
            seen["answer", says] += 1
    assert set(seen) == {(kind, says) for kind in ("first", "answer") for says in BOTH}


def judged(version: int) -> Judge:
    found = snapshot.here()
    return Judge(Machine(found.bytecode, found.routing, version), version)


def sorted_gone(objects: Ruleset) -> list[str]:
    return sorted(
        str(key)
        for key, content in objects.items()
        if isinstance(content, Set | Map) and not content.elements
    )

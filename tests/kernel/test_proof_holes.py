# SPDX-License-Identifier: GPL-2.0-or-later
"""What an attacker does beside the rules is proved no more: it is found, or named.

Each row changes a healthy domain in one way that no rule, element or route of the
product takes, and says which answer it must have.  What Linux forwards from and to is
asked of the kernel with real packets.
"""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from proof.claims import Claim, OnlyThrough, Result, Status, implied
from proof.verify import Prover
from proof.walk import Walker
from proof.world import Packet, World
from tests.kernel.proof_lab import APART, CLIENTS, Lab, domain, lists
from tests.kernel.test_proof_mutations import PEERS

pytestmark = pytest.mark.kernel

SYSCTL = Path("/proc/sys/net")
CUSTOM = "insert rule ip qubes custom-forward"


@pytest.fixture
def lab() -> Iterator[Lab]:
    with domain() as found:
        yield found


def unproved(lab: Lab, prover: Prover | None = None) -> list[Result]:
    """Return the claims that do not hold; ``prover`` may know an earlier domain."""
    world = lab.world()
    claims: list[Claim] = list(implied(world, lists(), APART, never=PEERS))
    found = (prover or Prover()).prove(world, claims)
    return [result for result in found if result.status is not Status.PROVED]


def told(results: list[Result]) -> set[tuple[str, int, Status]]:
    return {(str(r.claim), r.version, r.status) for r in results}


def chain(hook: str, *rules: str, family: str = "inet") -> str:
    """Return a table of somebody else; ``hook`` is type, hook and priority."""
    lines = [f"add rule {family} evil c {rule}" for rule in rules]
    base = f"add chain {family} evil c {{ type {hook}; }}"
    return "\n".join([f"add table {family} evil", base, *lines])


def evil(words: str, *rules: str, family: str = "inet") -> str:
    """Return a table with an object, and a chain that uses it."""
    whole = chain("filter hook forward priority 10", *rules, family=family)
    first, rest = whole.split("\n", 1)
    return f"{first}\nadd {words}\n{rest}"


HELPER = 'ct helper inet evil h { type "ftp" protocol tcp; l3proto ip; }'
EXPECTED = "ct expectation ip evil e { protocol tcp; dport 99; timeout 1m; size 9; }"
BY_NFT = {
    "a zone for what conntrack refuses": (
        chain("filter hook prerouting priority -150", "ct state invalid ct zone set 1"),
        "sets ct 17",
    ),
    "a helper that lets others open flows": (
        evil(HELPER, 'tcp dport 443 ct helper set "h"'),
        "object of type 3",
    ),
    "flows that are expected": (
        evil(EXPECTED, 'ct expectation set "e"', family="ip"),
        "object of type 9",
    ),
    "a proxy for connections": (
        evil("synproxy inet evil s { mss 1460; wscale 7; }", 'synproxy name "s"'),
        "object of type 10",
    ),
    "a map of objects": (
        (
            "add limit ip qubes l { rate 1/second; }\n"
            f'{CUSTOM} limit name tcp dport map {{ 22 : "l" }} accept'
        ),
        "object of type 0",
    ),
    "who sees fragments": (
        chain(
            "filter hook prerouting priority -450",
            "ip frag-off & 0x1fff != 0 meta mark set 7",
        ),
        "writes while it sees fragments",
    ),
    "translation on the way in": (
        chain("nat hook input priority 100", "drop"),
        "translates at hook input",
    ),
    "a set that vanishes, and all that is refused with it": (
        (
            "add map ip qubes m { type ipv4_addr : verdict; flags timeout; }\n"
            "add element ip qubes m { * timeout 1h : drop }\n"
            "add chain ip qubes c\nadd rule ip qubes c ip daddr vmap @m\n"
            f"add rule ip qubes c accept\n{CUSTOM} goto c"
        ),
        "an element that may vanish",
    ),
    "a client among those a packet is translated to": (
        chain(
            "nat hook prerouting priority -150",
            "iifname eth0 dnat to 10.137.0.4-10.137.0.6",
            family="ip",
        )
        + "\ninsert rule inet ravelin-guard forward accept\n"
        f"{CUSTOM} iifname eth0 accept",
        "a translation to what is not known",
    ),
}


def named(results: list[Result]) -> str:
    return "\n".join(note for result in results for note in result.notes)


@pytest.mark.parametrize("what", BY_NFT)
def test_what_else_a_rule_may_do_is_named(what: str, lab: Lab) -> None:
    script, reason = BY_NFT[what]
    assert unproved(lab) == []

    lab.apply(script)

    found = unproved(lab)
    assert found
    assert Status.PROVED not in {r.status for r in found}
    assert reason in named(found)


def test_what_is_dropped_once_it_is_translated_is_found(lab: Lab) -> None:
    script = chain("filter hook postrouting priority 200", "ct status snat drop")
    lab.apply(script)

    found = [r for r in unproved(lab) if "reaches all" in str(r.claim)]
    assert {r.status for r in found} == {Status.REFUTED}
    assert all(lab.through(r.came_by, r.packet) is None for r in found if r.packet)


def tool(words: str) -> None:
    subprocess.run(words.split(), check=True, capture_output=True)


BY_TOOLS = {
    "routes for a type of service": (
        ["ip route add unreachable default tos 0x10 table 10139"],
        "is taken, or another one",
    ),
    "a next hop that is not told": (
        [
            "ip nexthop add id 5 dev eth1",
            "ip route add 203.0.113.0/24 nhid 5 table 10139",
        ],
        "leads nobody knows where",
    ),
    "a rule for all ports but one": (
        ["ip rule add not from all sport 7777 unreachable pref 20"],
        "selector 23",
    ),
    "two ways that are equal": (
        [
            "ip route add 2001:db8:1::/48 dev eth0 table 10139 metric 7",
            "ip route append unreachable 2001:db8:1::/48 table 10139 metric 7",
        ],
        "is taken, or another one",
    ),
    "xfrm that refuses what it does not know": (
        ["ip xfrm policy setdefault fwd block"],
        "xfrm refuses",
    ),
}


@pytest.mark.parametrize("what", BY_TOOLS)
def test_other_ways_to_route_are_named(what: str, lab: Lab) -> None:
    lines, reason = BY_TOOLS[what]
    (SYSCTL / "ipv4/nexthop_compat_mode").write_text("0")
    assert unproved(lab) == []

    for line in lines:
        tool(line)

    assert reason in named(unproved(lab))


@pytest.mark.parametrize("network", ["198.51.100.0/24", "2001:db8:1::/48"])
def test_a_domain_that_takes_a_network_for_itself_is_found(
    network: str, lab: Lab
) -> None:
    tool(f"ip route add local {network} dev lo table local")

    found = [r for r in unproved(lab) if "reaches all" in str(r.claim)]
    assert {r.status for r in found} == {Status.REFUTED}
    assert all(lab.through(r.came_by, r.packet) is None for r in found if r.packet)


def test_a_jump_of_routing_rules_to_nowhere_is_passed_over(lab: Lab) -> None:
    """As fib_rules_lookup() does: it hides no rule behind it."""
    tool("ip rule add goto 20000 pref 10")

    assert unproved(lab) == []

    tool("ip rule add unreachable pref 20000")
    assert {r.status for r in unproved(lab)} == {Status.REFUTED}


@pytest.mark.parametrize(
    "name",
    [
        "ipv4/conf/eth0/src_valid_mark",
        "ipv6/conf/all/seg6_enabled",
        "ipv6/conf/vif5.0/rpl_seg_enabled",
        "ipv4/conf/all/bc_forwarding",
    ],
)
def test_settings_that_lead_packets_elsewhere_are_named(name: str, lab: Lab) -> None:
    assert unproved(lab) == []

    (SYSCTL / name).write_text("1")

    assert f"{name} is 1" in named(unproved(lab))


def test_who_remembers_sees_that_the_same_rules_are_elsewhere(lab: Lab) -> None:
    listing = ["nft", "list", "ruleset"]
    made = subprocess.run(listing, check=True, capture_output=True, text=True)
    lab.apply(f"flush ruleset\n{made.stdout}")
    remembering = Prover()
    assert unproved(lab, remembering) == []

    elsewhere = "hook input priority 77;"
    moved = re.sub(r"hook forward priority \S+;", elsewhere, made.stdout)
    lab.apply(f"flush ruleset\n{moved}")

    found = told(unproved(lab, remembering))
    assert found
    assert found == told(unproved(lab))


ENDS = {
    4: [
        "0.1.2.3",
        "0.0.0.0",
        "127.0.0.1",
        "240.0.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "198.51.100.9",
    ],
    6: [
        "::1",
        "::",
        "ff0e::1",
        "::ffff:1.2.3.4",
        "::1.2.3.4",
        "fe80::1",
        "fec0::1",
        "2001:db8::1",
        "2001:db8:1::9",
    ],
}
USUAL = {4: "198.51.100.7", 6: "2001:db8:1::7"}


@pytest.mark.parametrize("version", [4, 6])
def test_the_kernel_forwards_from_and_to_what_is_said(version: int, lab: Lab) -> None:
    """Also what no RFC lets it: 0.0.0.0/8, ::, and mapped addresses of IPv4."""
    lab.apply("insert rule inet ravelin-guard from-vif return")
    for name in ("eth0", "eth1"):
        lab.apply(f"insert rule netdev ravelin-guard egress-{name} accept")
    for family in ("ip", "ip6"):
        lab.apply(f"insert rule {family} qubes custom-forward accept")
    walker, own = Walker(lab.world()), CLIENTS["vif5.0"][version != 4]
    usual, seen = ip_address(USUAL[version]), set()
    for text in ENDS[version]:
        for source, target in ((ip_address(text), usual), (own, ip_address(text))):
            packet = Packet(source, target, 17, 1234, 443)
            (hop,) = walker.from_door("fw", "vif5.0", packet)
            passes = lab.through("vif5.0", packet) is not None
            assert (hop.verdict == "sent") is passes, (source, target, hop)
            seen.add(passes)
    assert seen == {True, False}


TO_LEAK = """
delete element ip qubes up { eth0 }
delete element ip6 qubes up { eth0 }
insert rule netdev ravelin-guard egress-eth0 accept
insert rule netdev ravelin-guard egress-eth1 accept
insert rule inet ravelin-guard prerouting iifname eth1 accept
flush chain ip qubes srcnat
"""
KEPT = "ct state established ct direction original accept"


def test_a_flow_that_leaves_the_tunnel_when_routes_change_is_possible(lab: Lab) -> None:
    """What a rule lets through for its state alone outlives the tunnel.

    eth1 stands for the tunnel, which is the only way that is up.  Nothing is
    translated: the kernel drops what was masqueraded for another interface.
    """
    source, server = CLIENTS["vif5.0"][0], ip_address("198.51.100.7")
    first = Packet(source, server, 17, 2000, 443)
    answer = Packet(server, source, 17, 443, 2000)
    tool("ip rule add iif vif5.0 lookup 77 pref 10")
    tool("ip route add default dev eth1 table 77")
    lab.apply(TO_LEAK)

    assert astray(lab) == set()
    lab.apply(f"{CUSTOM} {KEPT}")
    assert astray(lab) == {(4, Status.POSSIBLE)}

    assert lab.through("vif5.0", first) == "eth1"
    assert lab.through("eth1", answer) == "vif5.0"
    tool("ip route replace default dev eth0 table 77")
    assert lab.through("vif5.0", replace(first, first=2001)) is None
    assert lab.through("vif5.0", first) == "eth0"


def astray(lab: Lab) -> set[tuple[int, Status]]:
    place = lab.world().places["fw"]
    tunnel = replace(place, uplinks={"eth0": None}, carriers=frozenset({"eth1"}))
    claims = [OnlyThrough("work", "fw")]
    results = Prover().prove(World({"fw": tunnel}), claims)
    return {(r.version, r.status) for r in results if r.status is not Status.PROVED}


def test_a_way_out_of_which_nobody_was_told_is_found(lab: Lab) -> None:
    """A link to another namespace, and a rule and a route that lead there."""
    tool("ip link add aside type veth peer name beyond")
    for name in ("aside", "beyond"):
        tool(f"ip link set {name} up")
    assert unproved(lab) == []

    tool("ip route add 198.51.100.0/24 dev aside table 10139")
    lab.apply("add element ip qubes up { aside }")

    found = [r for r in unproved(lab) if "no more than" in str(r.claim)]
    assert {r.status for r in found} == {Status.REFUTED}
    assert {r.hops[-1].out for r in found} == {"aside"}


def test_what_ports_say_of_a_fragment_proves_nothing(lab: Lab) -> None:
    """A later one has none, and before conntrack each is seen alone."""
    what = "iifname vif5.0 udp dport 9999"
    lab.apply(f"{CUSTOM} {what} accept")
    lab.apply(chain("filter hook prerouting priority -450", f"{what} drop"))
    assert unproved(lab)

    lab.apply("delete table inet evil")
    lab.apply(chain("filter hook prerouting priority -300", f"{what} drop"))
    assert unproved(lab) == []

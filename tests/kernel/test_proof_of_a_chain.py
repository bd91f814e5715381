# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole product is proved, and what breaks it is shown and sent as a packet.

The chain is brought up by the real command.  Then, with nobody left to heal it,
faults are made as a hostile root could; each counterexample enters as a real frame
at the client and is seen, or not, on the wire behind the last uplink.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest

from controller import namespaces
from controller.addresses import INTERNAL4, INTERNAL6, MAC
from proof import snapshot
from proof.about import LIMITS
from proof.claims import (
    Alone,
    Asserted,
    Claim,
    Expect,
    NoTransit,
    OnlyThrough,
    Result,
    Status,
    implied,
)
from proof.replay import Watch, send
from proof.verify import Prover
from proof.walk import walk
from proof.wire import frame
from proof.world import Client, Packet, Place, World
from rules.ground import Ground, ground
from rules.model import Family, Policy, Ports
from rules.parse import parse_text
from tests.kernel.raw_packets import MAGIC
from tests.leaks.chain import Chain, appvm, running
from tests.leaks.surgery import Layer, remove, restored

pytestmark = pytest.mark.kernel

GATEWAYS = ("sys-firewall", "sys-net")
RULES = {
    "work": (
        "accept dst4=198.51.100.80 proto=tcp dstports=443",
        "accept dst6=2001:db8:80::80 proto=tcp dstports=443",
    ),
    "play": ("accept",),
    "sys-firewall": ("accept",),
}
APART = (*INTERNAL4, *INTERNAL6, ip_network("10.139.0.0/16"), ip_network("fd00::/8"))
WEB = (ip_network("198.51.100.80/32"), ip_network("2001:db8:80::80/128"))
PATIENCE = 20.0  # seconds; only a failing test waits that long


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    clients = (appvm("work", *RULES["work"]), appvm("play"))
    with running(*clients, "[domains.vault]\n") as made:
        made.ip("work")  # the controller tells all addresses, once
        made.crash()
        yield made


def lists() -> dict[str, Mapping[int, Ground]]:
    versions = {4: Family.IPV4, 6: Family.IPV6}
    policies = {
        name: Policy(tuple(parse_text(text, now=0) for text in texts))
        for name, texts in RULES.items()
    }
    return {
        name: {n: ground(policy, of, {}, frozenset(), 0) for n, of in versions.items()}
        for name, policy in policies.items()
    }


def world(chain: Chain, **changed: frozenset[str]) -> World:
    """Return what the kernels have now; ``changed`` are carriers by domain."""
    places = {}
    for domain in GATEWAYS:
        with namespaces.inside(chain.net(domain)):
            net = snapshot.here()
        clients = {}
        for link in net.routing.links:
            for route in net.routing.routes:
                if route.table == 10137 and link.index in route.interfaces:
                    clients[link.name] = client_with(chain, str(route.prefix))
        known = {vif: client for vif, client in clients.items() if client is not None}
        other = "sys-net" if domain == "sys-firewall" else None
        carriers = changed.get(domain.replace("-", "_"))
        places[domain] = Place(net, known, {"eth0": other}, carriers)
    with namespaces.inside(chain.net("vault")):
        vault = snapshot.here()
    return World(places, {"vault": vault})


def client_with(chain: Chain, prefix: str) -> Client | None:
    for name in RULES:
        both = chain.ip(name)
        if prefix.partition("/")[0] in map(str, both):
            return Client(name, both, MAC)
    return None


def broken(chain: Chain, claims: list[Claim]) -> list[Result]:
    found = Prover().prove(world(chain), claims)
    return [result for result in found if result.status is not Status.PROVED]


def everything(chain: Chain) -> list[Claim]:
    return list(implied(world(chain), lists(), APART, ("vault",)))


def replayed(chain: Chain, result: Result) -> bool:
    """Send a counterexample from its client; return whether it left the machine."""
    assert result.packet is not None
    mark = MAGIC + b"seen"
    gateway = mac_of_gateway(chain)
    data = frame(result.packet, gateway, mark)
    with namespaces.inside(chain.internet.net):
        watch = Watch("netvm2")
    with watch:
        with namespaces.inside(chain.net("work")):
            send("eth0", data)
        # What is allowed comes after it, so that one need not wait for nothing.
        control = replace(allowed(chain), first=result.packet.first ^ 1)
        with namespaces.inside(chain.net("work")):
            send("eth0", frame(control, gateway, MAGIC + b"last"))
        for found in watch.frames(PATIENCE):
            if found.endswith(mark):
                return True
            if found.endswith(MAGIC + b"last"):
                return False
    raise AssertionError("what is allowed did not leave")


def mac_of_gateway(chain: Chain) -> str:
    place = world(chain).places["sys-firewall"]
    vif = next(vif for vif, who in place.clients.items() if who.name == "work")
    link = next(link for link in place.net.routing.links if link.name == vif)
    return ":".join(f"{byte:02x}" for byte in link.mac)


def allowed(chain: Chain) -> Packet:
    source, target = chain.ip("work")[0], IPv4Address("198.51.100.80")
    return Packet(source, target, 6, 40000, 443, MAC)


def test_all_that_the_product_claims_is_proved(chain: Chain) -> None:
    results = list(Prover().prove(world(chain), everything(chain)))

    assert [r for r in results if r.status is not Status.PROVED] == []
    assert len(results) == 2 * (2 + 3 * 5 + 1)
    about_nothing = [r for r in results if r.packet is None]
    assert {type(r.claim) for r in about_nothing} == {Alone}
    assert all(r.generations and r.notes for r in results)


MARKED = """
insert rule inet ravelin-guard forward udp dport 3544 meta mark set 7
add rule ip qubes custom-forward meta mark 7 oifname eth0 accept
"""
FAULTS = {
    "a needle in the list": (
        "sys-firewall",
        "insert rule ip qubes {entry} udp dport 3544 accept",
    ),
    "a mark that a later chain honours": ("sys-firewall", MARKED),
    "a list that is gone": (
        "sys-firewall",
        "flush chain ip qubes {entry}\nadd rule ip qubes {entry} accept",
    ),
    "a list that is turned off": ("sys-firewall", "flush chain ip qubes {entry}"),
    "an uplink that is not up": ("sys-firewall", "flush set ip qubes up"),
    "nobody is translated": ("sys-firewall", "flush chain ip qubes srcnat"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_answered_with_a_packet_that_is_real(
    fault: str, chain: Chain
) -> None:
    domain, script = FAULTS[fault]
    entry = "q_" + str(chain.ip("work")[0]).replace(".", "-")
    with restored(chain, *GATEWAYS):
        chain.run(domain, "nft", "-f", "-", feed=script.format(entry=entry))
        refuted = [
            result
            for result in broken(chain, everything(chain))
            if result.status is Status.REFUTED and "work" in str(result.claim)
        ]
        assert refuted
        example = refuted[0]
        assert example.version == 4
        assert example.hops[0].rule or example.hops[0].chain or example.hops[0].reason
        left = [hop.verdict for hop in example.hops] == ["sent", "sent"]
        if fault in {"a list that is turned off", "an uplink that is not up"}:
            assert not left
        elif left:
            assert replayed(chain, example)
    assert broken(chain, everything(chain)) == []


def test_without_its_layers_a_gateway_lets_everything_through(chain: Chain) -> None:
    with restored(chain, *GATEWAYS):
        for layer in Layer:
            remove(chain, "sys-net", layer)
        claims: list[Claim] = [NoTransit("sys-net"), *everything(chain)]
        found = {str(r.claim): r for r in broken(chain, claims)}

    assert "nobody outside opens a flow to sys-firewall" in found
    assert all(r.status is Status.REFUTED for r in found.values())


def test_what_the_user_asserts_is_answered(chain: Chain) -> None:
    everywhere, web = Ports(0, 65535), Ports(443, 443)
    tcp = frozenset({6})
    claims: list[Claim] = [
        Asserted("work", WEB, tcp, web, Expect.REACH),
        Asserted("work", WEB, frozenset({17}), everywhere, Expect.BLOCKED),
        Asserted("work", (), None, None, "sys-net"),
        Asserted("work", (ip_network("172.16.0.0/12"),), None, None, Expect.BLOCKED),
        Asserted("work", (), tcp, web, Expect.BLOCKED),
        Asserted("work", WEB, tcp, everywhere, Expect.REACH),
        Asserted("nobody"),
        Asserted("work", (), None, None, "sys-nowhere"),
    ]

    results = list(Prover().prove(world(chain), claims, (4,)))

    assert [r.status.value for r in results] == [
        *["proved"] * 4,
        *["refuted"] * 2,
        *["unknown"] * 2,
    ]
    assert [r.notes[0] for r in results[-2:]] == [
        "nobody: no domain of that name is connected",
        "sys-nowhere: no domain that provides network",
    ]
    blocked, reached = results[4:6]
    assert [hop.verdict for hop in blocked.hops] == ["sent", "sent"]
    assert replayed(chain, blocked)
    assert reached.hops[-1].verdict == "rejected"
    assert not replayed(chain, reached)


def test_what_is_asserted_of_who_has_no_ipv6_is_proved_of_all_who_might_send_it(
    chain: Chain,
) -> None:
    """And said to be so; that it reaches somebody is not.

    The kernel lets its IPv6 pass all the same, which is no less refuted.
    """
    known = world(chain)
    place = known.places["sys-firewall"]
    one = {
        vif: replace(each, addresses=each.addresses[:1])
        for vif, each in place.clients.items()
    }
    bare = World({**known.places, "sys-firewall": replace(place, clients=one)})
    claims: list[Claim] = [
        Asserted("work", (), None, None, "sys-net"),
        Asserted("work", (ip_network("2001:db8:81::/48"),)),
        Asserted("work", WEB),
        Asserted("work", WEB, expect=Expect.REACH),
    ]

    through, blocked, open_, reached = Prover().prove(bare, claims, (6,))

    assert {r.status for r in (through, blocked)} == {Status.PROVED}
    for each in (through, blocked):
        assert (each.packet, each.notes[-1]) == (None, "work has no IPv6 address")
    assert open_.status is Status.REFUTED
    assert reached.status is Status.UNKNOWN
    (as_ever,) = Prover().prove(known, claims[:1], (6,))
    assert as_ever.packet is not None


def test_a_gateway_that_should_carry_but_forwards_is_refuted(chain: Chain) -> None:
    as_tunnel = world(chain, sys_firewall=frozenset({"tun9"}))
    claims = [OnlyThrough("work", "sys-firewall")]

    clear = list(Prover().prove(world(chain), claims))
    carried = list(Prover().prove(as_tunnel, claims))

    assert [r.status for r in clear] == [Status.PROVED] * 2
    assert [r.status for r in carried] == [Status.REFUTED] * 2
    assert replayed(chain, carried[0])


def test_each_hop_names_the_rule_that_lets_a_packet_pass(chain: Chain) -> None:
    hops = walk(world(chain), "work", allowed(chain))

    assert [(hop.domain, hop.verdict, hop.out) for hop in hops] == [
        ("sys-firewall", "sent", "eth0"),
        ("sys-net", "sent", "eth0"),
    ]
    assert [hop.rule and hop.rule.comment for hop in hops] == ["rule 0", "rule 0"]
    assert hops[1].packet.source == chain.ip("sys-firewall")[0]
    assert isinstance(hops[1].packet.source, IPv4Address)


def test_a_gap_is_never_proved(chain: Chain) -> None:
    with restored(chain, *GATEWAYS):
        script = "add table bridge b\nadd chain bridge b c "
        script += "{ type filter hook forward priority 0; }"
        chain.run("sys-net", "nft", "-f", "-", feed=script)
        results = broken(chain, everything(chain))

    assert {r.status for r in results} == {Status.UNKNOWN}
    assert all("is not modelled" in r.notes[0] for r in results)


def test_what_is_not_modelled_is_possible_and_named(chain: Chain) -> None:
    entry = "q_" + str(chain.ip("work")[0]).replace(".", "-")
    with restored(chain, *GATEWAYS):
        rule = f"insert rule ip qubes {entry} udp dport 3544 limit rate 1/second accept"
        chain.run("sys-firewall", "nft", "-f", "-", feed=rule)
        results = broken(chain, everything(chain))

    (result,) = results
    assert result.status is Status.POSSIBLE
    assert str(result.claim) == "work reaches no more than its list accepts"
    assert result.packet is not None
    assert (result.packet.protocol, result.packet.second) == (17, 3544)
    assert any(entry in note and note.endswith(": limit") for note in result.notes)


def test_what_a_limit_takes_is_assumed_by_name(chain: Chain) -> None:
    """That all leaves is proved for a client that keeps within its limits."""
    found = list(Prover().prove(world(chain), everything(chain)))

    less = [r for r in found if "all that its list accepts" in str(r.claim)]
    assert less
    assert all(r.status is Status.PROVED and LIMITS in r.notes for r in less)
    assert not [r for r in found if r not in less and LIMITS in r.notes]


TAKES = "limit rate over 1/second drop"
GIVES = {
    "within a rate": "limit rate 1/second accept",
    "beyond a rate": "limit rate over 1/second accept",
    "by vif, beyond a rate": "update @pace { iif limit rate over 1/second } accept",
}


@pytest.mark.parametrize("rule", GIVES.values(), ids=list(GIVES))
def test_a_limit_that_accepts_is_never_trusted(rule: str, chain: Chain) -> None:
    """And the same limit in front of a drop is what the assumption is about."""
    add = "add set ip qubes pace { type iface_index; flags dynamic; }\n"
    where = "rule ip qubes custom-forward udp dport 3544"
    reached: list[set[str]] = []
    for what in (rule, TAKES):
        with restored(chain, *GATEWAYS):
            script = f"{add}add {where} {what}"
            chain.run("sys-firewall", "nft", "-f", "-", feed=script)
            results = broken(chain, everything(chain))
            assert not [r for r in results if r.status is not Status.POSSIBLE]
            reached.append({str(r.claim) for r in results})

    assert "work reaches no more than its list accepts" in reached[0]
    assert reached[1] == set()


def test_a_client_that_is_held_is_refuted_with_the_rule_that_holds_it(
    chain: Chain,
) -> None:
    vifs = world(chain).places["sys-firewall"].clients.items()
    vif = next(vif for vif, client in vifs if client.name == "work")
    with restored(chain, *GATEWAYS):
        script = f"add element inet ravelin-guard held {{ {vif} }}"
        chain.run("sys-firewall", "nft", script)
        results = broken(chain, everything(chain))

    assert {str(r.claim) for r in results} == {"work reaches all that its list accepts"}
    assert {r.status for r in results} == {Status.REFUTED}
    assert all("opening" in str(r.hops[-1].rule) for r in results)


def test_uplinks_in_a_circle_are_never_proved(chain: Chain) -> None:
    place = world(chain).places["sys-firewall"]
    vif = next(vif for vif, who in place.clients.items() if who.name == "work")
    itself = replace(place.clients[vif], name="sys-firewall")
    turned = replace(place, clients={vif: itself}, uplinks={"eth0": "sys-firewall"})

    results = Prover().prove(
        World({"sys-firewall": turned}), [OnlyThrough("sys-firewall", "sys-firewall")]
    )

    assert {r.status for r in results} == {Status.UNKNOWN}


def test_a_vault_has_no_interface(chain: Chain) -> None:
    claims: list[Claim] = [Alone("vault"), Alone("work"), Alone("nobody")]

    results = list(Prover().prove(world(chain), claims, (6,)))

    assert [r.status.value for r in results] == ["proved", "refuted", "unknown"]
    assert isinstance(chain.ip("work")[1], IPv6Address)

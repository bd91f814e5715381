# SPDX-License-Identifier: GPL-2.0-or-later
"""Three layers, each enough alone: the kernel's state holds without any agent.

Everything here happens after the controller and its agents were killed with
SIGKILL, so nobody heals what the tests take away.  Classes: L5 L9 L10 P12 R2 R7
R8 R9 R10.  The positive control takes away all three layers.

Limits: routing alone does not know rules; in a state that lets some client out
it holds together with another layer, and alone in the state Blocked.
"""

import itertools
from collections.abc import Callable, Iterator

import pytest

from controller import namespaces
from tests.lab import attacks
from tests.lab.scene import Scene
from tests.lab.sniffer import EVERY, Packet, Sniffer
from tests.leaks.chain import GATEWAYS, Chain, Voice, appvm, running
from tests.leaks.judge import Wires
from tests.leaks.surgery import Layer, remove, restored

pytestmark = pytest.mark.kernel

BOTH = ("sys-firewall", "sys-net")
ENOUGH = [
    (),
    *((layer,) for layer in Layer),
    (Layer.GUARD, Layer.ROUTING),
    (Layer.RULES, Layer.ROUTING),
]
PAIRS = list(itertools.combinations(Layer, 2))
ROUTER, NEIGHBOUR = "02:00:00:00:00:01", "02:00:00:00:00:66"


def name(value: object) -> str:
    if isinstance(value, tuple):
        return "without-" + ("-".join(layer.value for layer in value) or "nothing")
    return getattr(value, "__name__", str(value))


def frames(scene: Scene) -> list[bytes]:
    """Return every client-side attack, one after the other."""
    kinds = (
        attacks.fuzz,
        attacks.stateless,
        attacks.headers,
        attacks.hairpin,
        attacks.spoofed,
        attacks.foreign_dns,
    )
    return [frame for attack in kinds for frame in attack(scene)]


@pytest.fixture(scope="module")
def orphan() -> Iterator[Chain]:
    """A chain whose controller and agents are dead, in the state Open."""
    with running(appvm("shut", "drop"), appvm("open")) as made:
        made.scene("shut", "open")  # asks the controller for the addresses
        made.crash()
        yield made


@pytest.fixture(scope="module")
def blocked() -> Iterator[Chain]:
    """The same, but died while the NetVM had no way out; main has one again."""
    with running(appvm("open"), appvm("other"), gateways=GATEWAYS) as made:
        made.scene("open", "other")
        with Voice(made, "sys-net") as voice:
            for version in ("-4", "-6"):
                made.run("sys-net", "ip", version, "route", "del", "default")
            while "state=blocked" not in voice.wait():
                pass
        made.crash()
        for version, via in (("-4", "192.0.2.1"), ("-6", "2001:db8:1::1")):
            words = f"{version} route add default via {via} dev eth0"
            made.run("sys-net", "ip", *words.split())
        yield made


@pytest.mark.parametrize("gone", ENOUGH, ids=name)
def test_a_forbidden_client_stays_in(orphan: Chain, gone: tuple[Layer, ...]) -> None:
    attack = frames(orphan.scene("shut", "open"))
    with restored(orphan, *BOTH):
        for layer in gone:
            remove(orphan, "sys-firewall", layer)
        with Wires(orphan) as wires:
            attacks.send(orphan.net("shut"), "eth0", attack)
    assert wires.marked == []
    assert wires.foreign == []


@pytest.mark.parametrize("gone", [(), *((layer,) for layer in Layer), *PAIRS], ids=name)
def test_a_blocked_netvm_lets_nobody_out(
    blocked: Chain, gone: tuple[Layer, ...]
) -> None:
    """L5 L10 R10: each layer alone, although main has a default route again."""
    attack = frames(blocked.scene("open", "other"))
    with restored(blocked, *BOTH):
        for layer in gone:
            remove(blocked, "sys-net", layer)
        with Wires(blocked) as wires:
            attacks.send(blocked.net("open"), "eth0", attack)
    assert [packet for packet in wires.middle if packet.marked]
    assert [packet for packet in wires.outer if packet.marked] == []


@pytest.mark.parametrize(
    "attack",
    [
        attacks.fuzz,
        attacks.stateless,
        attacks.headers,
        attacks.spoofed,
        attacks.foreign_dns,
    ],
    ids=name,
)
def test_without_any_layer_the_attack_is_seen_on_both_wires(
    orphan: Chain, attack: Callable[[Scene], list[bytes]]
) -> None:
    with restored(orphan, *BOTH):
        for domain, layer in itertools.product(BOTH, Layer):
            remove(orphan, domain, layer)
        with Wires(orphan) as wires:
            scene = orphan.scene("shut", "open")
            attacks.send(orphan.net("shut"), "eth0", attack(scene))
    assert [packet for packet in wires.middle if packet.marked]
    assert [packet for packet in wires.outer if packet.marked]
    assert wires.foreign


def test_without_any_layer_a_client_reaches_the_other(orphan: Chain) -> None:
    scene = orphan.scene("shut", "open")
    with restored(orphan, *BOTH), Sniffer(orphan.net("open"), "eth0") as victim:
        for layer in Layer:
            remove(orphan, "sys-firewall", layer)
        attacks.send(orphan.net("shut"), "eth0", attacks.hairpin(scene))
    assert victim.marked


@pytest.mark.parametrize("gone", [(), *((layer,) for layer in Layer)], ids=name)
def test_untracked_packets_do_not_pass(orphan: Chain, gone: tuple[Layer, ...]) -> None:
    """P12: somebody's notrack rule takes every state from conntrack."""
    hook = "{ type filter hook prerouting priority -300; }"
    evil = f"""
        add table inet evil
        add chain inet evil pre {hook}
        add rule inet evil pre iifname "vif*" notrack"""
    with restored(orphan, *BOTH):
        orphan.run("sys-firewall", "nft", "-f", "-", feed=evil)
        for layer in gone:
            remove(orphan, "sys-firewall", layer)
        with Wires(orphan) as wires:
            for client, other in (("shut", "open"), ("open", "shut")):
                attack = frames(orphan.scene(client, other))
                attacks.send(orphan.net(client), "eth0", attack)
    assert wires.marked == []
    assert wires.foreign == []


@pytest.mark.parametrize("bare", [False, True], ids=["protected", "control"])
def test_a_route_in_main_bends_no_clients_packet(orphan: Chain, bare: bool) -> None:  # noqa: FBT001
    """R2 R9 R10 (TunnelVision, E6): forwarded packets never consult main."""
    with restored(orphan, *BOTH):
        if bare:
            remove(orphan, "sys-net", Layer.ROUTING)
        for version, to, via in (
            ("-4", "198.51.100.0/24", "192.0.2.66"),
            ("-6", "2001:db8:80::/64", "2001:db8:1::66"),
        ):
            words = f"{version} route add {to} via {via} dev eth0"
            orphan.run("sys-net", "ip", *words.split())
        with Wires(orphan) as wires:
            attack = attacks.fuzz(orphan.scene("open", "shut"))
            attacks.send(orphan.net("open"), "eth0", attack)
    there = {p.mac_destination for p in wires.outer if p.marked}
    assert there == {NEIGHBOUR if bare else ROUTER}


def test_a_vif_in_no_group_is_confined_by_its_name(orphan: Chain) -> None:
    """R8: as one is that nobody configured yet.  The control is the same in its group.

    The guard counts as much from it, and nothing that it sends goes on.
    """
    scene = orphan.scene("open", "shut")
    route = orphan.run("sys-firewall", "ip", "route", "get", scene.client)
    vif = route.split("dev ")[1].split()[0]
    found = {}
    for group in ("2", "0", "2"):
        orphan.run("sys-firewall", "ip", "link", "set", vif, "group", group)
        before = orphan.counted("sys-firewall")["spoof"]
        with Wires(orphan) as wires:
            attacks.send(orphan.net("open"), "eth0", frames(scene))
        counted = orphan.counted("sys-firewall")["spoof"] - before
        found[group] = counted, bool(wires.marked)
    assert found["0"] == (found["2"][0], False)
    assert found["2"][0] > 0
    assert found["2"][1]


@pytest.mark.parametrize("gone", [(), *((layer,) for layer in Layer)], ids=name)
def test_a_neighbour_is_not_taken_for_the_netvm(
    orphan: Chain, gone: tuple[Layer, ...]
) -> None:
    """R16: own addresses as source, which the kernel is told to let in."""
    assert impersonated(orphan, gone) == []


def test_without_any_layer_a_neighbour_is_taken_for_the_netvm(orphan: Chain) -> None:
    assert impersonated(orphan, tuple(Layer))


def impersonated(chain: Chain, gone: tuple[Layer, ...]) -> list[Packet]:
    """Return what sys-firewall gets of it while some layers of sys-net are gone."""
    frames = attacks.impersonation(chain.lan("open"))
    with restored(chain, *BOTH), Sniffer(chain.net("sys-firewall"), "eth0") as inner:
        for layer in gone:
            remove(chain, "sys-net", layer)
        attacks.send(chain.internet.neighbour, "eth0", frames)
    return inner.marked


def test_no_routing_rule_is_for_a_user(orphan: Chain) -> None:
    """R9 (E14): ``uidrange`` with 0 in it would match what is forwarded."""
    for domain, version in itertools.product(BOTH, ("-4", "-6")):
        assert "uidrange" not in orphan.run(domain, "ip", version, "rule")


def test_an_impostor_inherits_nothing() -> None:
    """R7 R8 (E24): a device of the uplink's name, and one that looks like a vif.

    The positive control is the same again without rules and guard.
    """
    with running(appvm("open"), appvm("other")) as chain:
        scene = chain.scene("open", "other")
        chain.crash()
        chain.run("sys-firewall", "ip", "link", "del", "eth0")
        namespaces.create(chain.net("thief"))
        make = f"""link add eth0 type veth peer name eth0 netns {chain.net("thief")}
            addr add {scene.gateway}/32 dev eth0
            addr add {scene.gateway6}/128 dev eth0 nodad
            link set eth0 up
            route add default via {scene.uplink} dev eth0 onlink table 10139
            neigh add {scene.uplink} lladdr fe:ff:ff:ff:ff:ff dev eth0
            route add default via {scene.uplink6} dev eth0 onlink table 10139
            neigh add {scene.uplink6} lladdr fe:ff:ff:ff:ff:ff dev eth0
            link add vif77.0 type veth peer name vif77.0 netns {chain.net("thief")}
            link set vif77.0 up"""
        chain.run("sys-firewall", "ip", "-batch", "-", feed=make)
        chain.run("thief", "ip", "link", "set", "eth0", "up")
        chain.run("thief", "ip", "link", "set", "vif77.0", "up")
        protected = stolen(chain, scene)
        chain.run("sys-firewall", "nft", "flush", "ruleset")
        bare = stolen(chain, scene)
    assert protected == []
    assert bare


def stolen(chain: Chain, scene: Scene) -> list[Packet]:
    """Return what comes out of the uplink's impostor of all that clients send."""
    with Sniffer(chain.net("thief"), EVERY) as thief:
        attacks.send(chain.net("open"), "eth0", frames(scene))
        attacks.send(chain.net("thief"), "vif77.0", frames(scene))
    return [p for p in thief.marked if not p.outgoing and p.interface == "eth0"]

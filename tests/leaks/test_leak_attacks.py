# SPDX-License-Identifier: GPL-2.0-or-later
"""No attack of a client or a neighbour gets through the chain.

Classes (leaks.md, 2): each attack of `tests.lab.attacks` names its own.
Client side: P1 P2 P4 P5 P6 P7 P8 P9 P10 P11 P16 R16 R17 R18 R21 D1 D4 D6 D11.
Uplink side: R11 R12 R13 R15 R16.  The positive control, `test_leak_layers`, sends
the same frames through the same chain without its protection.

Limits: a veth has no VLAN or checksum offload that could hide a frame; timing
is not looked at.
"""

import json
from collections.abc import Callable, Iterator

import pytest

from tests.lab import attacks
from tests.lab.scene import Scene
from tests.lab.sniffer import Sniffer, together
from tests.leaks.chain import Chain, appvm, running
from tests.leaks.judge import NETVM_OWN, Wires
from tests.leaks.surgery import links, routing

pytestmark = pytest.mark.kernel

Attack = Callable[[Scene], list[bytes]]

CLIENT_SIDE: dict[Attack, str] = {
    attacks.fuzz: "P4 P5 P6 P7 P9 P10 P11 R21",
    attacks.stateless: "P1 P2",
    attacks.headers: "P8 P16",
    attacks.hairpin: "R17 R18",
    attacks.spoofed: "R16",
    attacks.poison: "R16 R17",
    attacks.foreign_dns: "D1 D4",
}
UPLINK_SIDE: dict[Attack, str] = {
    attacks.strong_host: "R12 R15",
    attacks.transit: "R1 R15",
    attacks.impersonation: "R16",
    attacks.disclosure: "R13",
    attacks.injection: "R11",
}
# Which counter of the guard must have seen the attack.
SECOND_JUDGE = {
    attacks.stateless: "fwd-invalid",
    attacks.spoofed: "spoof",
    attacks.poison: "arp-spoof",
    attacks.impersonation: "spoof-upstream",
}
VIF_MAC = "fe:ff:ff:ff:ff:ff"


def name(value: object) -> str:
    return getattr(value, "__name__", str(value))


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    """``shut`` may nothing, ``work`` a little, ``open`` everything."""
    with running(
        appvm("shut", "drop"),
        appvm(
            "work",
            "accept specialtarget=dns",
            "accept dsthost=198.51.100.80 proto=tcp dstports=7",
            "accept dsthost=2001:db8:80::80 proto=tcp dstports=7",
        ),
        appvm("open"),
    ) as made:
        yield made


@pytest.mark.parametrize("client", ["shut", "work"])
@pytest.mark.parametrize("attack", CLIENT_SIDE, ids=name)
def test_nothing_that_the_rules_forbid_leaves(
    chain: Chain, attack: Attack, client: str
) -> None:
    frames = attack(chain.scene(client, "open"))
    wires, victim = Wires(chain), Sniffer(chain.net("open"), "eth0")
    with together(wires, victim):
        attacks.send(chain.net(client), "eth0", frames)
    assert wires.marked == []
    assert wires.foreign == []
    assert victim.marked == []


@pytest.mark.parametrize("attack", CLIENT_SIDE, ids=name)
def test_what_leaves_has_the_gateways_own_address(chain: Chain, attack: Attack) -> None:
    before = chain.counted("sys-firewall")
    frames = attack(chain.scene("open", "work"))
    wires, victim = Wires(chain), Sniffer(chain.net("work"), "eth0")
    with together(wires, victim):
        attacks.send(chain.net("open"), "eth0", frames)
    assert wires.foreign == []
    assert victim.marked == []
    if attack in (attacks.fuzz, attacks.foreign_dns):
        assert [packet for packet in wires.outer if packet.marked]
    if attack in SECOND_JUDGE:
        comment = SECOND_JUDGE[attack]
        assert chain.counted("sys-firewall")[comment] > before[comment]


def neighbours(chain: Chain) -> set[tuple[str, ...]]:
    """Return whose MAC address sys-firewall knows where."""
    found = json.loads(chain.run("sys-firewall", "ip", "-j", "neigh"))
    keys = ("dst", "dev", "lladdr")
    return {tuple(str(each.get(key)) for key in keys) for each in found}


@pytest.mark.parametrize("client", ["shut", "open"])
def test_a_client_poisons_no_table_and_hears_of_nobody(
    chain: Chain, client: str
) -> None:
    """R16 R17: sender addresses that are not its own change and tell nothing."""
    before = neighbours(chain)
    with Sniffer(chain.net(client), "eth0") as wire:
        frames = attacks.poison(chain.scene(client, "work"))
        attacks.send(chain.net(client), "eth0", frames)
    assert neighbours(chain) == before
    heard = [p for p in wire.packets if not p.outgoing and not p.joining]
    assert heard == []


@pytest.mark.parametrize("attack", UPLINK_SIDE, ids=name)
def test_a_neighbour_of_the_netvm_gets_nothing_and_nowhere(
    chain: Chain, attack: Attack
) -> None:
    before, counted = routing(chain, "sys-net"), chain.counted("sys-net")
    wires, inner = Wires(chain), Sniffer(chain.net("sys-firewall"), "eth0")
    with together(wires, inner):
        attacks.send(chain.internet.neighbour, "eth0", attack(chain.lan("work")))
    assert inner.marked == []
    assert [p for p in wires.outer if p.source not in NETVM_OWN] == []
    assert [p for p in wires.outer if p.marked] == []
    assert routing(chain, "sys-net") == before
    if attack in SECOND_JUDGE:
        comment = SECOND_JUDGE[attack]
        assert chain.counted("sys-net")[comment] > counted[comment]


@pytest.mark.parametrize("attack", UPLINK_SIDE, ids=name)
def test_a_hostile_netvm_gets_nothing_and_nowhere(chain: Chain, attack: Attack) -> None:
    """R12 with the strongest neighbour there is: the NetVM itself."""
    gate, client, netvm = (chain.ip(n) for n in ("sys-firewall", "work", "sys-net"))
    scene = Scene(
        client=str(client[0]),
        client6=str(client[1]),
        gateway=str(gate[0]),
        gateway6=str(gate[1]),
        server="198.51.100.80",
        server6="2001:db8:80::80",
        other=str(chain.ip("open")[0]),
        other6=str(chain.ip("open")[1]),
        uplink=str(gate[0]),
        uplink6=str(gate[1]),
        uplink_mac="00:16:3e:5e:6c:00",
        router=str(netvm[0]),
        router6=str(netvm[1]),
        neighbour="10.137.0.99",
        neighbour6="fd09:24ef:4179::a89:99",
        neighbour_mac=VIF_MAC,
    )
    before = routing(chain, "sys-firewall")
    clients = Sniffer(chain.net("work"), "eth0"), Sniffer(chain.net("open"), "eth0")
    vif = next(n for n in links(chain, "sys-net") if n.startswith("vif"))
    wires = Wires(chain)
    with together(wires, *clients):
        attacks.send(chain.net("sys-net"), vif, attack(scene))
    assert clients[0].marked + clients[1].marked == []
    assert wires.foreign == []
    assert [packet for packet in wires.middle if packet.marked] == []
    assert routing(chain, "sys-firewall") == before

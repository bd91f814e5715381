# SPDX-License-Identifier: GPL-2.0-or-later
"""Names: asked of the resolver a client was given, of no other, or of nobody.

Classes: D1 D2 D3 D4 D11 (leaks.md, 2).  Limit: what a client asks over HTTPS of a
host that its rules allow (D6) is not DNS to a gateway.
"""

from collections.abc import Iterator

import pytest
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet as Layers

from tests.lab import attacks, sniffer
from tests.lab.attacks import PROBE, ip
from tests.lab.ends import MARKER
from tests.lab.scene import Scene
from tests.leaks.chain import Chain, appvm, running
from tests.leaks.judge import Wires

pytestmark = pytest.mark.kernel

VIRTUAL = ("10.139.1.1", "10.139.1.2", "fd09:24ef:4179::a8b:1", "fd09:24ef:4179::a8b:2")
RESOLVERS = ("192.0.2.53", "2001:db8:1::53")
OTHERS = ("192.0.2.1", "2001:db8:1::1")
# LLMNR, mDNS, NetBIOS, SSDP, WS-Discovery
GROUPS = [
    *(("224.0.0.252", 5355), ("224.0.0.251", 5353), ("239.255.255.250", 1900)),
    *(("255.255.255.255", 137), ("10.137.255.255", 138), ("239.255.255.250", 3702)),
    *(("ff02::1:3", 5355), ("ff02::fb", 5353), ("ff02::c", 1900), ("ff05::c", 3702)),
]


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    names = "accept specialtarget=dns"
    with running(appvm("work", names), appvm("open"), appvm("shut", "drop")) as made:
        yield made


@pytest.fixture(autouse=True)
def usual(chain: Chain) -> Iterator[None]:
    yield
    chain.resolvers(*RESOLVERS)


def questions(at: Scene, *targets: str, sport: int = 4053) -> list[bytes]:
    asked = DNS(rd=1, qd=DNSQR(qname=MARKER + b".example.com"))
    kinds: list[Layers] = [
        UDP(sport=sport, dport=53) / asked,
        TCP(sport=sport, dport=53, flags="S") / PROBE,
    ]
    ether = Ether(src=at.client_mac, dst=at.gateway_mac)
    return [
        bytes(ether / ip(at.client6 if ":" in to else at.client, to) / kind)
        for to in targets
        for kind in kinds
    ]


def ask(chain: Chain, client: str, *targets: str, sport: int = 4053) -> Wires:
    """Send questions, past the client's own kernel; return what was on the wires."""
    frames = questions(chain.scene(client, "shut"), *targets, sport=sport)
    with Wires(chain) as wires:
        attacks.send(chain.net(client), "eth0", frames)
    return wires


def asked(wires: Wires) -> set[tuple[str, int | None]]:
    """Return whom the NetVM asked, and by which protocol."""
    own = ("192.0.2.2", "2001:db8:1::2")
    return {
        (str(p.destination), p.protocol)
        for p in wires.outer
        if p.port == 53 and str(p.source) in own
    }


@pytest.mark.parametrize("client", ["work", "open"])
def test_a_client_is_answered_by_the_networks_resolvers(
    chain: Chain, client: str
) -> None:
    """D4, and the positive control of all of this page: UDP and TCP get through."""
    wires = ask(chain, client, *VIRTUAL)
    both = (sniffer.UDP, sniffer.TCP)
    assert asked(wires) == {(each, kind) for each in RESOLVERS for kind in both}
    assert wires.foreign == []


@pytest.mark.parametrize("client", ["work", "shut"])
def test_another_resolver_is_not_asked(chain: Chain, client: str) -> None:
    """D1: not a public one, not the network's own by its real address."""
    wires = ask(chain, client, "9.9.9.9", "2620:fe::fe", *RESOLVERS, *OTHERS)
    assert wires.marked == []
    assert asked(wires) == set()


def test_a_client_without_names_asks_nobody(chain: Chain) -> None:
    wires = ask(chain, "shut", *VIRTUAL)
    assert wires.marked == []


@pytest.mark.parametrize("client", ["work", "open"])
def test_without_a_resolver_nobody_is_asked(chain: Chain, client: str) -> None:
    """D2: the virtual addresses are not shown to the network either."""
    chain.resolvers()
    wires = ask(chain, client, *VIRTUAL)
    assert [packet for packet in wires.outer if packet.marked] == []
    assert asked(wires) == set()
    assert wires.foreign == []


@pytest.mark.parametrize("client", ["work", "open"])
def test_an_old_resolver_is_not_asked_again(chain: Chain, client: str) -> None:
    """D3 (E18b): the same ports, so the same flow, before and after the change."""
    before = ask(chain, client, *VIRTUAL, sport=4111)
    chain.resolvers(*OTHERS)
    after = ask(chain, client, *VIRTUAL, sport=4111)
    assert {to for to, _ in asked(before)} == set(RESOLVERS)
    assert {to for to, _ in asked(after)} == set(OTHERS)


@pytest.mark.parametrize("client", ["work", "open", "shut"])
def test_no_other_kind_of_name_leaves(chain: Chain, client: str) -> None:
    """D11: LLMNR, mDNS, NetBIOS, SSDP, WS-Discovery."""
    scene = chain.scene(client, "shut")
    ether = Ether(src=scene.client_mac, dst=scene.gateway_mac)
    frames = [
        bytes(ether / ip(scene.client6 if ":" in group else scene.client, group) / each)
        for group, port in GROUPS
        for each in (UDP(sport=port, dport=port) / PROBE,)
    ]
    with Wires(chain) as wires:
        attacks.send(chain.net(client), "eth0", frames)
    assert [packet for packet in wires.outer if packet.marked] == []

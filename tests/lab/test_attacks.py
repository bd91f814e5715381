# SPDX-License-Identifier: GPL-2.0-or-later
"""Every attack is what it says, and reaches its victim when nothing defends it."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controller import namespaces
from controller.lab.addresses import WEB
from tests.lab import attacks, sniffer
from tests.lab.ends import MARKER
from tests.lab.routed import CLIENT4, CLIENT6, GATEWAY4, GATEWAY6, Routed, routed
from tests.lab.scene import Scene
from tests.lab.sniffer import Sniffer, parse

Attack = Callable[[Scene], list[bytes]]

SCENE = Scene(
    client=str(CLIENT4),
    client6=str(CLIENT6),
    gateway=str(GATEWAY4),
    gateway6=str(GATEWAY6),
    server=str(WEB[0]),
    server6=str(WEB[1]),
)
CLIENT_SIDE: dict[Attack, int] = {
    attacks.fuzz: 302,
    attacks.stateless: 12,
    attacks.headers: 12,
    attacks.hairpin: 36,
    attacks.spoofed: 15,
    attacks.poison: 12,
    attacks.foreign_dns: 24,
}
UPLINK_SIDE: dict[Attack, int] = {
    attacks.strong_host: 144,
    attacks.transit: 66,
    attacks.impersonation: 72,
    attacks.disclosure: 12,
    attacks.injection: 3,
}
NO_PAYLOAD = {attacks.poison, attacks.disclosure, attacks.injection}


def name(value: object) -> str:
    return getattr(value, "__name__", str(value))


@pytest.fixture(scope="module")
def row(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Routed]:
    with routed(tmp_path_factory.mktemp("row")) as made:
        yield made


@pytest.mark.parametrize(
    ("attack", "count"), (CLIENT_SIDE | UPLINK_SIDE).items(), ids=name
)
def test_an_attack_has_its_number_of_marked_frames(attack: Attack, count: int) -> None:
    frames = attack(SCENE)
    assert len(frames) == count
    if attack not in NO_PAYLOAD:
        # The last fragment of a long packet is too short for a marker.
        assert sum(MARKER not in frame for frame in frames) == (attack is attacks.fuzz)


@pytest.mark.parametrize("attack", CLIENT_SIDE, ids=name)
def test_a_client_frame_is_addressed_to_its_gateway(attack: Attack) -> None:
    groups = attacks.BROADCAST, attacks.MDNS_MAC
    for frame in map(parse, attack(SCENE)):
        assert frame.mac_destination in (SCENE.gateway_mac, *groups)


@pytest.mark.parametrize("attack", UPLINK_SIDE, ids=name)
def test_a_neighbours_frame_comes_from_its_own_mac(attack: Attack) -> None:
    for frame in map(parse, attack(SCENE)):
        assert frame.mac_source == SCENE.neighbour_mac


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("attack", "forwarded"),
    [
        (attacks.fuzz, 290),
        (attacks.stateless, 12),
        (attacks.headers, 5),
        (attacks.spoofed, 8),
        (attacks.foreign_dns, 24),
    ],
    ids=name,
)
def test_a_plain_router_lets_it_through(
    row: Routed, attack: Attack, forwarded: int
) -> None:
    frames = attack(SCENE)
    with Sniffer(row.internet.net, row.port) as wire:
        attacks.send(row.client, "eth0", frames)
    got = [packet for packet in wire.marked if not packet.outgoing]
    assert len(got) >= forwarded


@pytest.mark.kernel
def test_every_frame_sent_is_on_the_wire(row: Routed) -> None:
    frames = [frame for attack in CLIENT_SIDE for frame in attack(SCENE)]
    with Sniffer(row.router, "vif1.0") as wire:
        attacks.send(row.client, "eth0", frames)
    assert not Counter(frames) - Counter(packet.raw for packet in wire.packets)


@pytest.mark.kernel
def test_a_plain_router_takes_a_neighbour_anywhere(row: Routed) -> None:
    with (
        Sniffer(row.router, "vif1.0") as inner,
        Sniffer(row.internet.net, row.port) as w,
    ):
        attacks.send(row.internet.neighbour, "eth0", attacks.transit(SCENE))
    targets = {packet.destination for packet in inner.marked if packet.outgoing}
    assert targets == {CLIENT4, CLIENT6}
    forwarded = {packet.destination for packet in w.marked if not packet.outgoing}
    assert {*WEB} <= forwarded


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("attack", "ethertype"),
    [
        (attacks.strong_host, sniffer.ETH_IP),
        (attacks.strong_host, sniffer.ETH_IP6),
        (attacks.disclosure, sniffer.ETH_ARP),
    ],
    ids=["ipv4", "ipv6", "arp"],
)
def test_a_plain_router_admits_its_inner_addresses(
    row: Routed, attack: Attack, ethertype: int
) -> None:
    with Sniffer(row.internet.net, row.port) as wire:
        attacks.send(row.internet.neighbour, "eth0", attack(SCENE))
    inner = (GATEWAY4, GATEWAY6)
    assert [
        packet
        for packet in wire.packets
        if packet.source in inner and packet.ethertype == ethertype
    ]


@pytest.mark.kernel
def test_a_host_that_listens_takes_a_router_from_a_neighbour(row: Routed) -> None:
    with namespaces.inside(row.router):
        Path("/proc/sys/net/ipv6/conf/eth0/accept_ra").write_text("2")
    with Sniffer(row.router, "eth0") as wire:
        attacks.send(row.internet.neighbour, "eth0", attacks.injection(SCENE))
        wire.wait(lambda packet: packet.icmp_type == 137)
    with namespaces.inside(row.router):
        routes = Path("/proc/thread-self/net/ipv6_route").read_text()
    assert "20010db80bad0000" in routes

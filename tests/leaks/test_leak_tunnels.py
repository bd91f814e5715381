# SPDX-License-Identifier: GPL-2.0-or-later
"""Attacks on a VPN that need no fault, on a tunnel of either kind.

Classes: L1 P1 to P11 P16 R4 R5 R12 R13 R14 R16 R17 R23 D1 (leaks.md, 2 and 2.7).
Whatever must not be seen is seen in the same test, or in its twin ``control``, when
the guard, the rules and the routing are gone.
"""

import sys
from collections.abc import Iterable
from contextlib import nullcontext
from itertools import count, permutations

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.layers.l2 import ARP, Ether

from tests.e2e.machine import stilled
from tests.e2e.vpn_room import PROVIDER, kill
from tests.lab import attacks
from tests.lab.attacks import PROBE, ip
from tests.lab.ends import MARKER
from tests.lab.sniffer import EVERY, Packet, Sniffer
from tests.leaks.tunnels import (
    WEB4,
    Vpn,
    bare,
    flood,
    flows,
    kept_ports,
    tool,
)

pytestmark = pytest.mark.kernel

PATIENCE = 90.0  # seconds; only a failing test waits that long
MACS = {"src": "fe:ff:ff:ff:ff:ff", "dst": "00:16:3e:5e:6c:00"}
GUARDED = pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "control"])
CHOSEN = range(5000, 5050)  # source ports of an attacker's choice


@GUARDED
def test_nobody_but_the_daemon_talks_to_the_server(vpn: Vpn, *, guarded: bool) -> None:
    """MUL-02-002: the hole for the tunnel is nobody else's."""
    tell = f"""
import os, socket, sys
uid = int(sys.argv[1])
os.setresuid(uid, uid, uid)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
try:
    s.sendto({MARKER!r}, ("{PROVIDER}", {vpn.port}))
except OSError:
    pass
"""
    users = ("0", "1000", "65534")
    with nullcontext() if guarded else bare(vpn.room), vpn.room.sniffer() as seen:
        for uid in users:
            vpn.machine.tool("sys-vpn", sys.executable, "-c", tell, uid)

    marked = [p for p in seen.marked if not p.outgoing and p.interface == vpn.vif]
    assert len(marked) == (0 if guarded else len(users))


@GUARDED
def test_a_neighbour_cannot_probe_for_the_tunnels_address(
    vpn: Vpn, *, guarded: bool
) -> None:
    """CVE-2019-14899: SYN and SYN/ACK to an address of the tunnel's network.

    MLLVD-CR-24-03: nor is an ARP question for it answered.
    """
    gateway = str(vpn.machine.status()["sys-net"]["ip"])
    knocks = [
        Ether(**MACS) / ip(WEB4, vpn.own) / TCP(sport=80, dport=port, flags=flags)
        for port in (22, 80, 40000)
        for flags in ("S", "SA")
    ]
    knocks.append(Ether(**MACS) / ip(WEB4, vpn.own) / UDP(sport=5, dport=9) / PROBE)
    asking = Ether(src=MACS["src"], dst="ff:ff:ff:ff:ff:ff")
    knocks.append(asking / ARP(op=1, hwsrc=MACS["src"], psrc=gateway, pdst=vpn.own))
    port = vpn.vif
    held = stilled(vpn.room.agent()) if guarded else bare(vpn.room)
    with held, vpn.room.sniffer() as seen:
        if not guarded:
            tool(vpn.room, "sysctl -qw net.ipv4.conf.eth0.arp_ignore=0")
            tool(vpn.room, "ip route replace 198.51.100.0/24 dev eth0")
            neighbour = f"{WEB4} lladdr {MACS['src']} dev eth0"
            tool(vpn.room, f"ip neighbour replace {neighbour}")
        attacks.send(vpn.machine.net("sys-net"), port, [bytes(k) for k in knocks])
    told = [p for p in seen.packets if not p.outgoing and p.interface == port]
    answers = [p for p in told if vpn.own in (str(p.source), str(p.destination))]

    assert bool(answers) is not guarded
    if not guarded:
        tool(vpn.room, "sysctl -qw net.ipv4.conf.eth0.arp_ignore=1")


def test_nothing_that_a_client_can_think_of_leaves_in_clear(vpn: Vpn) -> None:
    """All protocols and odd flags (E3, E18), with the tunnel up and without."""
    scene = vpn.scene()
    frames = [
        frame
        for attack in (
            attacks.fuzz,
            attacks.stateless,
            attacks.headers,
            attacks.hairpin,
            attacks.spoofed,
            attacks.foreign_dns,
        )
        for frame in attack(scene)
    ]
    with vpn.room.sniffer() as seen:
        attacks.send(vpn.machine.net("work"), "eth0", frames)
        kill(vpn.room.daemon())
        attacks.send(vpn.machine.net("work"), "eth0", frames)

    assert vpn.leaked(seen) == []
    with bare(vpn.room), vpn.room.sniffer() as seen:
        tool(vpn.room, f"ip link set {vpn.device} down")
        attacks.send(vpn.machine.net("work"), "eth0", frames)
    assert vpn.leaked(seen)  # the positive control


def test_what_a_client_sends_to_the_server_goes_through_the_tunnel(vpn: Vpn) -> None:
    """TunnelCrack, ServerIP (CVE-2023-36673): the way to it is not the client's."""
    scene = vpn.scene()
    there = ip(scene.client, PROVIDER)
    ether = Ether(src=scene.client_mac, dst=scene.gateway_mac)
    ports = (vpn.port, 53, 80, 9009)
    frames = [bytes(ether / there / UDP(sport=4242, dport=p) / PROBE) for p in ports]
    frames += [
        bytes(ether / there / TCP(sport=4242, dport=p, flags="S") / PROBE)
        for p in ports
    ]
    tunnel = Sniffer(vpn.machine.net("sys-vpn"), vpn.device)
    with vpn.room.sniffer() as seen, tunnel:
        attacks.send(vpn.machine.net("work"), "eth0", frames)
    assert vpn.leaked(seen) == []
    # OpenVPN takes it for its own, come back, and drops it then (openvpn(8)).
    assert len([p for p in tunnel.packets if p.outgoing and MARKER in p.raw]) >= 4

    with bare(vpn.room), vpn.room.sniffer() as seen:
        attacks.send(vpn.machine.net("work"), "eth0", frames)
    assert [p for p in vpn.leaked(seen) if p.marked]  # the positive control


def test_internal_addresses_are_not_shown_to_the_provider(vpn: Vpn) -> None:
    """R23: the tunnel is the default route, and not for 10.137.0.0/16."""
    with Sniffer(vpn.machine.internet.net, vpn.far) as seen:
        for to in ("10.137.9.9", "10.138.0.9", "10.139.1.9"):
            vpn.machine.tries("work", "tcp", to, 80)
        # The positive control: this does come out there.
        flows(vpn)

    assert seen.packets
    # Frames of a tun device have no Ethernet header, so they are searched.
    inside = [bytes([10, 137, 9, 9]), bytes([10, 138, 0, 9]), bytes([10, 139, 1, 9])]
    assert not [p for p in seen.packets if any(x in p.raw for x in inside)]


@pytest.mark.parametrize(
    "order", [*permutations(("sys-net", "sys-vpn"))], ids=" then ".join
)
def test_nothing_leaks_whichever_gateway_boots_first(
    vpn: Vpn, order: tuple[str, ...]
) -> None:
    """L1: what leaves the tunnel's netvm in clear is seen beyond it.

    The control is a client of that netvm, whose probe the same judge sees.
    """
    at = vpn.scene("evil")
    ether = Ether(src=at.client_mac, dst=at.gateway_mac)
    probe = bytes(ether / ip(at.client, WEB4) / UDP(sport=5, dport=9009) / PROBE)
    with Sniffer(vpn.machine.internet.net, EVERY) as outer:
        with flood(vpn.room):
            for domain in order:
                vpn.machine.ravelin("restart", domain, within=PATIENCE)
            flows(vpn)
        clear = [p for p in outer.marked if p.interface.startswith("netvm")]
        attacks.send(vpn.machine.net("evil"), "eth0", [probe])
        outer.wait(lambda p: p.marked and p.interface.startswith("netvm"), PATIENCE)

    assert clear == []


# Port shadow (CVE-2021-3773): who may choose the port that a translated flow gets
# can take another's place in the table of connections, and get its answers.


def shots(vpn: Vpn, client: str, ports: Iterable[int]) -> list[bytes]:
    """Return probes of a client from source ports of its choice."""
    at = vpn.scene(client)
    there = Ether(src=at.client_mac, dst=at.gateway_mac) / ip(at.client, WEB4)
    return [bytes(there / UDP(sport=each, dport=9009) / PROBE) for each in ports]


def seen_ports(sniffer: Sniffer) -> list[int]:
    """Return the source ports of probes on a tun device, which has no Ethernet."""
    found = filter(is_shot, sniffer.packets)
    return [int.from_bytes(packet.raw[20:22]) for packet in found]


def is_shot(packet: Packet) -> bool:
    """Whether it is a probe that has come out of a tunnel."""
    return not packet.outgoing and packet.marked


@GUARDED
def test_a_client_cannot_choose_its_port_in_the_tunnel(
    vpn: Vpn, *, guarded: bool
) -> None:
    """R14: so it cannot take the place of another client of the same tunnel."""
    # Where random is not asked for, a known port is translated as it was before.
    chosen = CHOSEN if guarded else range(6000, 6050)
    frames = shots(vpn, "work", chosen)
    agent = vpn.room.agent()
    with Sniffer(vpn.machine.internet.net, vpn.far) as seen:
        kept = nullcontext() if guarded else kept_ports(vpn.machine, "sys-vpn", agent)
        with kept:
            attacks.send(vpn.machine.net("work"), "eth0", frames)
            # The daemons at both ends come to it when they come to it.
            come = count(1)
            seen.wait(lambda p: is_shot(p) and next(come) == len(chosen), PATIENCE)
    ports = seen_ports(seen)

    assert len(ports) == len(chosen)
    # Of 65536 ports a few may be the client's own by chance, and without the guard a
    # few may be taken by flows that were translated when it was there.
    assert len(set(ports)) > 40
    if guarded:
        assert sum(port in chosen for port in ports) < 5
    else:
        assert sum(port in chosen for port in ports) > 40


@GUARDED
def test_a_neighbour_cannot_take_the_place_of_the_tunnel(
    vpn: Vpn, *, guarded: bool
) -> None:
    """R14: a client of the same NetVM sends to the server, from the tunnel's port.

    It does so when the NetVM has forgotten the tunnel.  The server's next word would
    be the attacker's, who could drop or answer it.
    """
    agent = vpn.machine.agent("sys-net")
    port = tunnel_port(vpn)
    at = vpn.scene("evil")
    there = ip(at.client, PROVIDER) / UDP(sport=port, dport=vpn.port) / PROBE
    shot = bytes(Ether(src=at.client_mac, dst=at.gateway_mac) / there)
    with Sniffer(vpn.machine.internet.net, "*") as outer:
        if guarded:
            take_the_place(vpn, shot)
        else:
            with kept_ports(vpn.machine, "sys-net", agent):
                take_the_place(vpn, shot)
                outer.wait(lambda p: p.marked, PATIENCE)
    taken = [p.source_port for p in outer.marked if p.interface.startswith("netvm")]

    assert len(taken) == 1
    assert (taken == [port]) is not guarded
    flows(vpn)


def take_the_place(vpn: Vpn, shot: bytes) -> None:
    """Have the NetVM forget the tunnel, and send before the tunnel does."""
    with stilled(vpn.room.agent()), stilled(vpn.room.daemon()):
        words = ("conntrack", "-D", "-p", "udp", "--dport", str(vpn.port))
        vpn.machine.tool("sys-net", *words)
        attacks.send(vpn.machine.net("evil"), "eth0", [shot])


def tunnel_port(vpn: Vpn) -> int:
    """Return the port that the tunnel is sent from."""
    listed = vpn.machine.tool("sys-vpn", "conntrack", "-L", "-p", "udp")
    for line in listed.splitlines():
        words = dict(w.partition("=")[::2] for w in reversed(line.split()))
        if (words.get("dst"), words.get("dport")) == (PROVIDER, str(vpn.port)):
            return int(words["sport"])
    raise AssertionError(listed)


def test_somebody_on_the_uplink_makes_no_entry_in_the_table(vpn: Vpn) -> None:
    """R14: what is sent to the tunnel's port from elsewhere is nobody's flow.

    The control is the tunnel itself, which is in the same table.
    """
    port, gateway = tunnel_port(vpn), vpn.scene().gateway
    knocks = [
        bytes(Ether(**MACS) / ip(WEB4, gateway) / UDP(sport=each, dport=port) / PROBE)
        for each in (vpn.port, 53, *CHOSEN)
    ]
    attacks.send(vpn.machine.net("sys-net"), vpn.vif, knocks)
    listed = vpn.machine.tool("sys-vpn", "conntrack", "-L", "-p", "udp")

    assert f"src={PROVIDER}" in listed
    assert not [x for x in listed.splitlines() if f"src={WEB4} dst={gateway}" in x]

# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever happens to a WireGuard tunnel, its clients' packets go nowhere else.

Classes: L5 L6 L10 X1 X2 X3 R2 R3 R4 R5 R7 R10 R12 R13 R23 D2 (leaks.md, 2 and 2.7).
Two clients flood all the while.  The judge stands at the far end of the VPN's
uplink: what comes out is the tunnel's own UDP to the one server, or a leak.  Each
happening is repeated without the guard, the rules and the routing, where the same
flood is seen in clear.

LEAK_ROUNDS sets how many happenings follow each other in one test.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.layers.l2 import ARP, Ether

from controller import namespaces
from tests.e2e.machine import until
from tests.e2e.wireguard_room import (
    IN_TUNNEL,
    OTHER_END,
    PATIENCE,
    PROVIDER,
    Room,
    impostor,
    kill,
    leaked,
    room,
    tunnelled,
)
from tests.lab import attacks
from tests.lab.attacks import PROBE, ip
from tests.lab.ends import MARKER
from tests.lab.scene import Scene
from tests.lab.sniffer import Packet, Sniffer

pytestmark = pytest.mark.kernel

ROUNDS = int(os.environ.get("LEAK_ROUNDS", "12"))
WEB4, WEB6, ELSEWHERE = "198.51.100.80", "2001:db8:80::80", "192.0.2.66"
MACS = {"src": "fe:ff:ff:ff:ff:ff", "dst": "00:16:3e:5e:6c:00"}

FLOOD = f"""
import socket, time
to = [("{WEB4}", 4433), ("9.9.9.9", 53), ("{PROVIDER}", 51820), ("{ELSEWHERE}", 4433)]
four = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
while True:
    for each in to:
        try:
            four.sendto({MARKER!r}, each)
        except OSError:
            pass
    try:
        six.sendto({MARKER!r}, ("{WEB6}", 4433))
    except OSError:
        pass
    time.sleep(0.004)
"""

Happening = Callable[[Room], None]


@pytest.fixture(scope="module")
def _running() -> Iterator[Room]:
    with room() as made:
        made.give_good()
        made.machine.up()
        made.comes_up()
        # A client that may do everything leaves it all to the layers below.
        made.machine.does("firewall", "work", "reset")
        yield made
        made.machine.does("down")


@pytest.fixture
def vpn(_running: Room) -> Room:
    until(_running.flows, PATIENCE * 3)
    return _running


@contextmanager
def flood(vpn: Room) -> Iterator[None]:
    """Send from both clients, all the time."""
    floods = []
    for domain in ("work", "personal"):
        with namespaces.inside(vpn.machine.net(domain)):
            floods.append(subprocess.Popen([sys.executable, "-c", FLOOD]))
    try:
        yield
    finally:
        for each in floods:
            each.kill()
            each.wait()


def tool(vpn: Room, words: str) -> None:
    vpn.machine.tool("sys-vpn", *words.split())


@contextmanager
def bare(vpn: Room) -> Iterator[None]:
    """Take away all that protects; the agent stands still, or it would heal."""
    with vpn.stilled():
        tool(vpn, "nft flush ruleset")
        for version in ("-4", "-6"):
            shown = vpn.machine.tool("sys-vpn", "ip", version, "rule").splitlines()
            for line in shown:
                priority = int(line.partition(":")[0])
                if 0 < priority < 32766:
                    tool(vpn, f"ip {version} rule delete pref {priority}")
        yield
        # Routes that were put there go, and the agent gives its own back.
        the_uplink_flaps(vpn)


# What happens.


def the_daemon_is_killed(vpn: Room) -> None:
    kill(vpn.daemon())


def the_device_is_deleted(vpn: Room) -> None:
    with suppress(subprocess.CalledProcessError):  # it may be gone this moment
        tool(vpn, "ip link delete wg0")


def the_device_is_set_down(vpn: Room) -> None:
    with suppress(subprocess.CalledProcessError):
        tool(vpn, "ip link set wg0 down")


def the_agent_is_killed(vpn: Room) -> None:
    kill(vpn.agent())


def both_are_killed(vpn: Room) -> None:
    pids = vpn.agent(), vpn.daemon()
    for pid in pids:
        kill(pid)


def the_agent_is_told_to_stop(vpn: Room) -> None:
    with suppress(ProcessLookupError):
        os.kill(vpn.agent(), signal.SIGTERM)


def all_is_read_anew(vpn: Room) -> None:
    with suppress(ProcessLookupError):
        os.kill(vpn.agent(), signal.SIGHUP)


def the_uplink_flaps(vpn: Room) -> None:
    tool(vpn, "ip link set eth0 down")
    tool(vpn, "ip link set eth0 up")


def rules_change(vpn: Room) -> None:
    """It fails if the agent is killed again and again meanwhile."""
    vpn.machine.ravelin("firewall", "personal", "add", "accept", "proto=udp")
    vpn.machine.ravelin("firewall", "personal", "del", "accept", "proto=udp")


def routes_are_injected(vpn: Room) -> None:
    """TunnelVision (CVE-2024-3661): what DHCP's option 121 would put into main."""
    gateway = vpn.machine.status()["sys-net"]["ip"]
    for to in ("0.0.0.0/1", "128.0.0.0/1", f"{WEB4}/32"):
        tool(vpn, f"ip route replace {to} via {gateway} dev eth0 onlink")


def the_server_is_on_the_local_network(vpn: Room) -> None:
    """TunnelCrack, LocalNet (CVE-2023-36672): the web's prefix is on the link."""
    tool(vpn, "ip route replace 198.51.100.0/24 dev eth0")


HAPPENINGS: tuple[Happening, ...] = (
    the_daemon_is_killed,
    the_device_is_deleted,
    the_device_is_set_down,
    the_agent_is_killed,
    both_are_killed,
    the_agent_is_told_to_stop,
    all_is_read_anew,
    the_uplink_flaps,
    rules_change,
    routes_are_injected,
    the_server_is_on_the_local_network,
)


@pytest.mark.parametrize("happens", HAPPENINGS, ids=lambda h: h.__name__)
def test_nothing_leaks_when(vpn: Room, happens: Happening) -> None:
    """And the clients flow again with no hand."""
    with vpn.sniffer() as seen, flood(vpn):
        seen.wait(is_tunnel, PATIENCE)
        happens(vpn)
        until(vpn.flows, PATIENCE * 3)

    assert leaked(seen) == []
    assert tunnelled(seen)


def is_tunnel(packet: Packet) -> bool:
    return str(packet.destination) == PROVIDER and packet.port == 51820


def test_nothing_leaks_whatever_follows_whatever(vpn: Room) -> None:
    seed = int(time.time())
    chosen = random.Random(seed).choices(HAPPENINGS, k=ROUNDS)
    with vpn.sniffer() as seen, flood(vpn):
        for happens in chosen:
            happens(vpn)
        until(vpn.flows, PATIENCE * 4)

    assert leaked(seen) == [], seed
    assert tunnelled(seen)


def test_nothing_leaks_when_the_server_is_another(vpn: Room) -> None:
    """The profile is changed while clients flood; one address is carried at a time."""
    vpn.give_good(OTHER_END)
    try:
        with vpn.sniffer() as seen, flood(vpn):
            vpn.machine.up()
            seen.wait(lambda p: str(p.destination) == OTHER_END, PATIENCE)
            until(vpn.flows, PATIENCE * 3)
    finally:
        vpn.give_good()
        vpn.machine.up()

    assert leaked(seen) == []
    ends = [str(packet.destination) for packet in tunnelled(seen)]
    first = ends.index(OTHER_END)
    assert set(ends[first:]) == {OTHER_END}


CONTROLS: tuple[Happening, ...] = (
    the_device_is_deleted,
    routes_are_injected,
    the_server_is_on_the_local_network,
)


@pytest.mark.parametrize("happens", CONTROLS, ids=lambda h: h.__name__)
def test_without_protection_it_would_be_seen(vpn: Room, happens: Happening) -> None:
    """The positive control: the same flood, the same judge, no layer left."""
    with bare(vpn), vpn.sniffer() as seen, flood(vpn):
        happens(vpn)
        seen.wait(lambda p: p.marked and p.interface.startswith("vif"), PATIENCE)

    assert leaked(seen)


def test_an_impostor_of_the_device_gets_nothing(vpn: Room) -> None:
    """R7: rules and routes go by index; the name alone carries nothing."""
    with flood(vpn), vpn.stilled(), Sniffer(vpn.machine.net("sys-vpn"), "*") as seen:
        impostor(vpn)
        # The flood goes on for as long as a web client needs to give up.
        assert not vpn.flows()

    # What the impostor sends comes out of its other end.
    theirs = [p for p in seen.packets if p.interface == "eve"]
    assert [p for p in theirs if p.marked or str(p.destination) == WEB4] == []
    assert [p for p in seen.packets if p.marked and p.interface.startswith("vif")]


def test_an_impostor_would_get_all_by_name(vpn: Room) -> None:
    """The positive control: without protection a route by name leads to it."""
    with bare(vpn), flood(vpn), Sniffer(vpn.machine.net("sys-vpn"), "*") as seen:
        impostor(vpn)
        tool(vpn, "ip route replace default dev wg0")
        tool(vpn, "ip neighbour replace 198.51.100.80 lladdr 02:00:00:00:00:09 dev wg0")
        seen.wait(lambda p: p.marked and p.interface == "eve", PATIENCE)


@pytest.mark.parametrize("uid", [0, 1000, 65534])
@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "control"])
def test_nobody_but_the_daemon_talks_to_the_server(
    vpn: Room, uid: int, *, guarded: bool
) -> None:
    """MUL-02-002: the hole for the tunnel is nobody else's."""
    tell = f"""
import os, socket
os.setresuid({uid}, {uid}, {uid})
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
try:
    s.sendto({MARKER!r}, ("{PROVIDER}", 51820))
except OSError:
    pass
"""
    with vpn.sniffer() as seen:
        if guarded:
            vpn.machine.tool("sys-vpn", sys.executable, "-c", tell)
        else:
            with bare(vpn):
                vpn.machine.tool("sys-vpn", sys.executable, "-c", tell)

    assert bool([p for p in seen.packets if p.marked]) is not guarded


@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "control"])
def test_a_neighbour_cannot_probe_for_the_tunnels_address(
    vpn: Room, *, guarded: bool
) -> None:
    """CVE-2019-14899: SYN and SYN/ACK to an address of the tunnel's network.

    MLLVD-CR-24-03: nor is an ARP question for it answered.
    """
    gateway = str(vpn.machine.status()["sys-net"]["ip"])
    knocks = [
        Ether(**MACS) / ip(WEB4, IN_TUNNEL) / TCP(sport=80, dport=port, flags=flags)
        for port in (22, 80, 40000)
        for flags in ("S", "SA")
    ]
    knocks.append(Ether(**MACS) / ip(WEB4, IN_TUNNEL) / UDP(sport=5, dport=9) / PROBE)
    asking = Ether(src=MACS["src"], dst="ff:ff:ff:ff:ff:ff")
    knocks.append(asking / ARP(op=1, hwsrc=MACS["src"], psrc=gateway, pdst=IN_TUNNEL))
    port = uplink_port(vpn)
    with bare(vpn) if not guarded else vpn.stilled(), vpn.sniffer() as seen:
        if not guarded:
            tool(vpn, "sysctl -qw net.ipv4.conf.eth0.arp_ignore=0")
            tool(vpn, "ip route replace 198.51.100.0/24 dev eth0")
            neighbour = f"{WEB4} lladdr {MACS['src']} dev eth0"
            tool(vpn, f"ip neighbour replace {neighbour}")
        attacks.send(vpn.machine.net("sys-net"), port, [bytes(k) for k in knocks])
    told = [p for p in seen.packets if not p.outgoing and p.interface == port]
    answers = [p for p in told if IN_TUNNEL in (str(p.source), str(p.destination))]

    assert bool(answers) is not guarded
    if not guarded:
        tool(vpn, "sysctl -qw net.ipv4.conf.eth0.arp_ignore=1")


def uplink_port(vpn: Room) -> str:
    """Return the vif of the VPN in its netvm."""
    shown = vpn.machine.tool("sys-net", "ip", "-brief", "link").split()
    return next(x.partition("@")[0] for x in shown if x.startswith("vif"))


def test_nothing_that_a_client_can_think_of_leaves_in_clear(vpn: Room) -> None:
    """All protocols and odd flags (E3, E18), with the tunnel up and without."""
    row = vpn.machine.status()
    scene = Scene(
        client=str(row["work"]["ip"]),
        client6=str(row["work"]["ip6"]),
        gateway=str(row["sys-vpn"]["ip"]),
        gateway6=str(row["sys-vpn"]["ip6"]),
        server=WEB4,
        server6=WEB6,
        other=str(row["personal"]["ip"]),
        other6=str(row["personal"]["ip6"]),
        uplink=str(row["sys-net"]["ip"]),
        uplink6=str(row["sys-net"]["ip6"]),
    )
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
    with vpn.sniffer() as seen:
        attacks.send(vpn.machine.net("work"), "eth0", frames)
        kill(vpn.daemon())
        attacks.send(vpn.machine.net("work"), "eth0", frames)

    assert leaked(seen) == []
    with bare(vpn), vpn.sniffer() as seen:
        tool(vpn, "ip link set wg0 down")
        attacks.send(vpn.machine.net("work"), "eth0", frames)
    assert leaked(seen)  # the positive control


def test_internal_addresses_are_not_shown_to_the_provider(vpn: Room) -> None:
    """R23: the tunnel is the default route, and not for 10.137.0.0/16."""
    with Sniffer(vpn.machine.internet.net, "wgs0") as seen:
        for to in ("10.137.9.9", "10.138.0.9", "10.139.1.9"):
            vpn.machine.tries("work", "tcp", to, 80)
        assert vpn.flows()  # the positive control: this does come out there

    assert seen.packets
    # Frames of a tun device have no Ethernet header, so they are searched.
    inside = [bytes([10, 137, 9, 9]), bytes([10, 138, 0, 9]), bytes([10, 139, 1, 9])]
    assert not [p for p in seen.packets if any(x in p.raw for x in inside)]

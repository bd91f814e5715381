# SPDX-License-Identifier: GPL-2.0-or-later
"""What the gateways send of their own, tell and serve: nothing but what they must.

Classes: L9 L15 P3 P13 P14 P15 P17 R14 R18 R19 R22 R23 D8 (leaks.md, 2).
Limits: nothing bounds how many allowed flows one client opens (R22), and what a
program in the NetVM asks of its own network is allowed.
"""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_RR
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6
from scapy.layers.l2 import Ether

from controller import namespaces
from tests.e2e.machine import until
from tests.lab import attacks
from tests.lab.attacks import PROBE, ip, ping
from tests.lab.ends import MARKER
from tests.lab.prober import Flow
from tests.lab.sniffer import ICMP as ICMP4
from tests.lab.sniffer import ICMP6, Sniffer
from tests.leaks.chain import Chain, appvm, kept, running
from tests.leaks.judge import Wires
from tests.leaks.surgery import routing

pytestmark = pytest.mark.kernel

WEB4, WEB6 = "198.51.100.80", "2001:db8:80::80"
VIF_MAC, ETH_MAC = "fe:ff:ff:ff:ff:ff", "00:16:3e:5e:6c:00"
RULES = (
    "accept specialtarget=dns",
    *(f"accept dsthost={web} proto=udp dstports=7" for web in (WEB4, WEB6)),
)


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    with running(appvm("shut", "drop"), appvm("work", *RULES), appvm("open")) as made:
        yield made


def from_client(*packets: object) -> list[bytes]:
    return [bytes(Ether(src=ETH_MAC, dst=VIF_MAC) / packet) for packet in packets]


@pytest.mark.parametrize(("domain", "wire"), [("sys-firewall", 0), ("sys-net", 1)])
@pytest.mark.parametrize("bare", [False, True], ids=["protected", "control"])
def test_a_packet_socket_gets_no_foreign_address_out(
    chain: Chain,
    domain: str,
    wire: int,
    bare: bool,  # noqa: FBT001
) -> None:
    """P13 (E12): inet hooks do not see packet sockets, the egress hook does."""
    scene = chain.scene("open", "work")
    with kept(chain, domain):
        if bare:
            chain.run(domain, "nft", "delete", "table", "netdev", "ravelin-guard")
        with Wires(chain) as wires:
            for attack in (attacks.fuzz, attacks.headers, attacks.poison):
                send_anyway(chain.net(domain), attack(scene))
    seen = [packet for packet in (wires.middle, wires.outer)[wire] if packet.marked]
    assert bool(seen) is bare
    assert bool(wires.foreign) is bare


def send_anyway(net: Path, frames: list[bytes]) -> None:
    """Send as `attacks.send` does, also after a frame that was dropped (ENOBUFS)."""
    with namespaces.inside(net), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:
        s.bind(("eth0", 0))
        for frame in frames:
            with suppress(OSError):
                s.send(frame)


@pytest.mark.parametrize("uid", [0, 1000, 65534])
def test_no_program_in_a_firewallvm_talks(chain: Chain, uid: int) -> None:
    """D8 P14 P15 R18: all it may ask for is a name, of its own resolvers."""
    tell = f"""
import socket
for host in ("{WEB4}", "{WEB6}", "9.9.9.9", "2620:fe::fe", "224.0.0.251", "ff02::fb"):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in (7, 53, 67, 123, 137, 443, 853, 5353, 5355):
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            with socket.socket(family, kind) as s:
                s.settimeout(0.01)
                try:
                    s.connect((host, port))
                    s.send(b"{MARKER.decode()}")
                except OSError:
                    pass
"""
    with Wires(chain) as wires:
        words = ["setpriv", f"--reuid={uid}", "--clear-groups"]
        chain.run("sys-firewall", *words, "/usr/bin/python3", "-I", "-c", tell)
    assert [packet for packet in wires.middle if not packet.neighbourly] == []
    with kept(chain, "sys-firewall"), Wires(chain) as wires:
        chain.run("sys-firewall", "nft", "delete", "table", "ip", "qubes")
        words = ["setpriv", f"--reuid={uid}", "--clear-groups"]
        chain.run("sys-firewall", *words, "/usr/bin/python3", "-I", "-c", tell)
    assert wires.marked  # the positive control


@pytest.mark.parametrize("client", ["shut", "open"])
def test_a_gateway_serves_its_clients_nothing(chain: Chain, client: str) -> None:
    """R18 R19: not even if a program in it listens on every address."""
    scene = chain.scene(client, "work")
    listeners = [f"TCP:{port}" for port in (22, 53, 631, 8080)]
    targets = [scene.gateway, scene.uplink, "127.0.0.1", "192.0.2.2"]
    targets += (scene.gateway6, scene.uplink6, "::1", "2001:db8:1::2")
    source = {4: scene.client, 6: scene.client6}
    ports = (*range(1, 140), 443, 546, 547, 631, 853, 5353, 5355, 8080, 8082, 9051)
    knocks = [
        ip(source[6 if ":" in target else 4], target) / kind
        for target in targets
        for port in ports
        for kind in (TCP(sport=50000, dport=port), UDP(sport=50000, dport=port))
    ]
    with (
        serving(chain, "sys-firewall", *listeners),
        serving(chain, "sys-net", *listeners),
        Sniffer(chain.net(client), "eth0") as wire,
    ):
        attacks.send(chain.net(client), "eth0", from_client(*knocks))
    answers = [p for p in wire.packets if not p.outgoing and not p.neighbourly]
    assert {packet.protocol for packet in answers} == {ICMP4, ICMP6}


def test_what_custom_input_accepts_is_served(chain: Chain) -> None:
    """The positive control of the test before: the port is open, the rule shuts."""
    scene = chain.scene("open", "work")
    knock = ip(scene.client, scene.gateway) / TCP(sport=50000, dport=8080)
    with (
        serving(chain, "sys-firewall", "TCP:8080"),
        kept(chain, "sys-firewall"),
        Sniffer(chain.net("open"), "eth0") as wire,
    ):
        rule = "ip qubes custom-input tcp dport 8080 accept"
        chain.run("sys-firewall", "nft", "add", "rule", *rule.split())
        rule = "ip qubes output tcp sport 8080 accept"
        chain.run("sys-firewall", "nft", "add", "rule", *rule.split())
        attacks.send(chain.net("open"), "eth0", from_client(knock))
        wire.wait(lambda packet: not packet.outgoing and packet.source_port == 8080)


@contextmanager
def serving(chain: Chain, domain: str, *listeners: str) -> Iterator[None]:
    """Listen in a domain on TCP ports of all addresses of both families."""
    sockets = []
    with namespaces.inside(chain.net(domain)):
        for each in listeners:
            address = ("", int(each.partition(":")[2]))
            family = socket.AF_INET6
            sockets.append(
                socket.create_server(address, family=family, dualstack_ipv6=True)
            )
    yield
    for made in sockets:
        made.close()


@pytest.mark.parametrize(("hops", "who"), [(1, "sys-firewall"), (2, "sys-net")])
def test_only_a_gateway_says_that_a_packet_died(
    chain: Chain, hops: int, who: str
) -> None:
    """P17: traceroute sees the address a client knows anyway."""
    scene = chain.scene("open", "work")
    dying = (
        IP(src=scene.client, dst=WEB4, ttl=hops),
        IPv6(src=scene.client6, dst=WEB6, hlim=hops),
    )
    probes = from_client(*(each / UDP(sport=5, dport=7) / PROBE for each in dying))
    with Wires(chain) as wires, Sniffer(chain.net("open"), "eth0") as wire:
        attacks.send(chain.net("open"), "eth0", probes)
    answers = [p for p in wire.packets if not p.outgoing and not p.neighbourly]
    assert {packet.source for packet in answers} == set(chain.ip(who))
    assert [packet for packet in wires.outer if packet.marked] == []


def test_no_header_tells_the_network_an_inner_address(chain: Chain) -> None:
    """P17: the record-route option would name every hop (RFC 791, 3.1)."""
    scene = chain.scene("open", "work")
    recorded = IP(
        src=scene.client, dst=WEB4, options=[IPOption_RR(routers=["0.0.0.0"] * 9)]
    )
    with Wires(chain) as wires:
        probes = from_client(recorded / UDP(sport=5, dport=7) / PROBE)
        attacks.send(chain.net("open"), "eth0", probes)
    inner = (scene.client, scene.gateway, scene.uplink)
    written = [socket.inet_aton(address) for address in inner]
    assert [p for p in wires.outer if any(each in p.raw for each in written)] == []


def test_an_icmp_error_carries_nothing_out(chain: Chain) -> None:
    """P3: errors that quote a live, allowed flow, with a payload of their own."""
    scene = chain.scene("work", "open")
    with (
        Wires(chain) as wires,
        Sniffer(chain.net("work"), "eth0", drain=0.1) as wire,
        Flow(chain.net("work"), "udp", IPv4Address(WEB4)),
    ):
        port = wire.wait(lambda packet: packet.source_port == 7).port
        flow = {"sport": port, "dport": 7}
        back = {"sport": 7, "dport": port}
        errors = [
            IP(src=scene.client, dst=WEB4) / ICMP(type=kind) / quoted
            for kind in (3, 4, 5, 11, 12)
            for quoted in (
                IP(src=scene.client, dst=WEB4) / UDP(**flow) / (b"EVIL" + MARKER),
                IP(src=WEB4, dst=scene.client) / UDP(**back) / (b"EVIL" + MARKER),
            )
        ]
        errors.append(
            IPv6(src=scene.client6, dst=WEB6)
            / ICMPv6DestUnreach()
            / IPv6(src=WEB6, dst=scene.client6)
            / UDP(**back)
            / (b"EVIL" + MARKER)
        )
        attacks.send(chain.net("work"), "eth0", from_client(*errors))
    assert [packet for packet in wires.marked if b"EVIL" in packet.raw] == []
    for domain in ("sys-firewall", "sys-net"):
        assert "ct helper" not in chain.run(domain, "nft", "list", "ruleset")
        with namespaces.inside(chain.net(domain)), suppress(FileNotFoundError):
            helper = Path("/proc/sys/net/netfilter/nf_conntrack_helper")
            assert helper.read_text().strip() == "0"


def test_two_clients_of_one_port_learn_nothing_of_each_other(chain: Chain) -> None:
    """R14 (CVE-2021-3773): every flow gets a port that nobody chose."""
    for client, first in (("open", 5000), ("work", 5000)):
        scene = chain.scene(client, "shut")
        probes = from_client(
            *(
                ip(source, target) / UDP(sport=first + turn, dport=7) / PROBE
                for turn in range(50)
                for source, target in ((scene.client, WEB4), (scene.client6, WEB6))
            )
        )
        with Wires(chain) as wires:
            attacks.send(chain.net(client), "eth0", probes)
        ports = [p.source_port for p in wires.middle if p.marked and p.protocol == 17]
        assert len(ports) == 100
        # Of 65536 ports a few may be the client's own by chance.
        assert sum(port in range(5000, 5050) for port in ports) < 5
        assert len(set(ports)) > 90


def test_what_is_refused_takes_no_room_in_conntrack(chain: Chain) -> None:
    """R22: 20000 refused flows leave none (E7b)."""
    scene = chain.scene("shut", "open")
    (first,) = from_client(ip(scene.client, WEB4) / UDP(dport=9, chksum=0) / PROBE)
    ports = range(1024, 21024)
    flood = [first[:34] + port.to_bytes(2) + first[36:] for port in ports]
    before = int(chain.run("sys-firewall", "conntrack", "-C"))
    attacks.send(chain.net("shut"), "eth0", flood)
    assert int(chain.run("sys-firewall", "conntrack", "-C")) < before + 50


def test_inner_prefixes_never_get_to_the_network(chain: Chain) -> None:
    """R23: who else is inside, and the virtual resolvers, stay inside."""
    scene = chain.scene("open", "work")
    inner = ["10.137.9.9", "10.138.1.1", "10.139.1.9", "10.139.1.1", scene.other]
    inner += ["fd09:24ef:4179::a89:99", "fd09:24ef:4179::a8a:1", scene.other6]
    inner += ["fd09:24ef:4179::a8b:9", "fd09:24ef:4179::a8b:1"]
    probes = [
        base / kind / PROBE
        for base in (
            ip(scene.client6 if ":" in each else scene.client, each) for each in inner
        )
        for kind in (UDP(sport=5, dport=443), TCP(sport=5, dport=80))
    ]
    probes += [ping(ip(scene.client, "10.137.9.9"))]
    elsewhere = ip(scene.client, "172.16.0.1") / UDP(sport=5, dport=443) / PROBE
    with Wires(chain) as wires:
        attacks.send(chain.net("open"), "eth0", from_client(*probes, elsewhere))
    assert {str(p.destination) for p in wires.outer if p.marked} == {"172.16.0.1"}


def test_routing_that_somebody_changed_is_put_right(chain: Chain) -> None:
    """L9 L10: rules of ours deleted and routes added, under the agent's eyes."""
    before = routing(chain, "sys-firewall")
    chain.run("sys-firewall", "ip", "-4", "rule", "del", "pref", "121")
    chain.run("sys-firewall", "ip", "-6", "rule", "del", "pref", "120")
    extra = ("route", "add", "203.0.113.0/24", "dev", "eth0", "table", "10139")
    chain.run("sys-firewall", "ip", *extra)
    until(lambda: routing(chain, "sys-firewall") == before)


def test_toggling_forwarding_by_hand_opens_nothing(chain: Chain) -> None:
    """L15 (E23): the kernel resets accept_redirects; one per device still says no."""
    scene = chain.scene("shut", "open")
    before = routing(chain, "sys-firewall")
    with namespaces.inside(chain.net("sys-firewall")):
        for text in ("0", "1"):
            Path("/proc/sys/net/ipv4/ip_forward").write_text(text)
            Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text(text)
    links = json.loads(chain.run("sys-net", "ip", "-j", "link"))
    vif = next(x["ifname"] for x in links if x["ifname"].startswith("vif"))
    injected = [
        frame.replace(bytes.fromhex("020000000002"), bytes.fromhex("00163e5e6c00"))
        for frame in attacks.injection(scene)
    ]
    with Wires(chain) as wires:
        attacks.send(chain.net("sys-net"), vif, injected)
        attacks.send(chain.net("shut"), "eth0", attacks.fuzz(scene))
    assert routing(chain, "sys-firewall") == before
    assert wires.marked == []
    assert wires.foreign == []

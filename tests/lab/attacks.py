# SPDX-License-Identifier: GPL-2.0-or-later
"""What an attacker sends, as Ethernet frames, and the way to send it.

Client side: `fuzz`, `stateless`, `headers`, `hairpin`, `spoofed`, `poison` and
`foreign_dns` leave a client for its gateway.  Uplink side: `strong_host`,
`disclosure`, `injection` and `transit` come from a neighbour of the NetVM.
Whatever has room for a payload carries the marker of `tests.lab.ends`.
"""

import socket
from collections.abc import Callable, Sequence
from functools import cache, wraps
from pathlib import Path

from scapy.config import conf
from scapy.layers import inet6
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_LSRR, fragment
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from controller import namespaces
from tests.lab.ends import MARKER
from tests.lab.scene import Scene

conf.verb = 0

Attack = Callable[[Scene], list[bytes]]

BROADCAST, MDNS_MAC = "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:fb"
FOREIGN, FOREIGN6 = "9.9.9.9", "2620:fe::fe"  # a public resolver
PROBE = Raw(MARKER)
PORTS = (123, 443, 3478, 5353, 1900, 500, 4500)
NEXT = (6, 17, 58, 47, 50, 132)
FLAGS = ("A", "FA", "RA", "R", "F", "FPU", "", "SA", "SF", "PA")


def _once(attack: Attack) -> Attack:
    """Make the frames of a scene once: scapy takes its time."""
    made = cache(attack)
    return wraps(attack)(lambda at: [*made(at)])


def send(net: Path, interface: str, frames: Sequence[bytes]) -> None:
    """Put frames on an interface of a namespace, past all of its own rules."""
    with namespaces.inside(net), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:
        s.bind((interface, 0))
        for frame in frames:
            s.send(frame)


@_once
def fuzz(at: Scene) -> list[bytes]:
    """All that a client can think of (leak experiments E3 and E18): 302 frames."""
    there, there6 = ip(at.client, at.server), ip(at.client6, at.server6)
    long = IP(src=at.client, dst=at.server, id=99) / UDP(sport=5, dport=6)
    lsrr = IPOption_LSRR(routers=[at.uplink])
    packets = [
        *(IP(src=at.client, dst=at.server, proto=n) / PROBE for n in range(256)),
        *(there / TCP(sport=40000, dport=80, flags=f, seq=7) / PROBE for f in FLAGS),
        *(there / UDP(sport=4444, dport=port) / PROBE for port in PORTS),
        *(there / ICMP(type=n) / PROBE for n in (0, 3, 5, 8, 11, 13, 15, 17)),
        *fragment(long / Raw(b"LEAKPROBE-frag" * 200), fragsize=400),
        ip(at.client, "224.0.0.251") / UDP(sport=5353, dport=5353) / PROBE,
        ip(at.client, "255.255.255.255") / UDP(sport=68, dport=67) / PROBE,
        ip(at.uplink, at.server) / UDP(sport=1, dport=2) / PROBE,
        IP(src=at.client, dst=at.server, options=[lsrr]) / UDP() / PROBE,
        *(IPv6(src=at.client6, dst=at.server6, nh=n) / PROBE for n in NEXT),
        there6 / UDP(sport=5, dport=53) / PROBE,
        ping(there6),
        there6 / TCP(sport=5, dport=80, flags="S") / PROBE,
    ]
    return _from_client(at, packets)


@_once
def stateless(at: Scene) -> list[bytes]:
    """What belongs to no connection, so that NAT would miss it (E2, E20): 12."""
    there = ip(at.client, at.server)
    quoted = ip(at.server, at.client) / UDP(sport=53, dport=9)
    tcp = {"sport": 41000, "dport": 80, "seq": 12345, "ack": 777}
    flags = ("R", "RA", "SF", "FPU", "", "FA", "A", "SA")
    packets = [
        *(there / TCP(flags=each, **tcp) / PROBE for each in flags),
        there / ICMP(type=3, code=1) / quoted / PROBE,
        there / ICMP(type=0, id=7) / PROBE,
        IP(src=at.client, dst=at.server, proto=47) / PROBE,
        IP(src=at.client, dst=at.server, proto=132) / PROBE,
    ]
    return _from_client(at, packets)


@_once
def headers(at: Scene) -> list[bytes]:
    """IPv6 extension headers, foreign ethertypes, VLAN, group MACs (E31)."""
    udp = UDP(sport=5, dport=443) / PROBE
    plain = ip(at.client, at.server) / udp
    chains = (
        inet6.IPv6ExtHdrHopByHop(),
        inet6.IPv6ExtHdrDestOpt(),
        inet6.IPv6ExtHdrFragment(),
        inet6.IPv6ExtHdrRouting(addresses=[at.uplink6]),
        inet6.IPv6ExtHdrDestOpt() / inet6.IPv6ExtHdrFragment(),
    )
    macs = {"src": at.client_mac, "dst": at.gateway_mac}
    types = (0x88CC, 0x8863, 0x888E, 0x0800)
    return [
        *_from_client(at, [ip(at.client6, at.server6) / c / udp for c in chains]),
        *(bytes(Ether(**macs, type=each) / PROBE) for each in types),
        bytes(Ether(**macs) / Dot1Q(vlan=5) / plain),
        bytes(Ether(src=at.client_mac, dst=BROADCAST) / plain),
        bytes(Ether(src=at.client_mac, dst=MDNS_MAC) / plain),
    ]


@_once
def hairpin(at: Scene) -> list[bytes]:
    """From one client to another, and to addresses of the NetVM itself."""
    targets = (at.other, at.other6, at.uplink, at.uplink6, at.gateway, at.gateway6)
    return _from_client(at, _knocks(at.client, at.client6, targets))


@_once
def spoofed(at: Scene) -> list[bytes]:
    """A source that is not the client's: its address, then its MAC."""
    sources = (at.other, at.gateway, at.uplink, at.server, "127.0.0.1", "0.0.0.0")
    sources6 = (at.other6, at.gateway6, at.uplink6, at.server6, "::1", "fe80::5", "::")
    udp = UDP(sport=5, dport=443) / PROBE
    strange = Ether(src="00:16:3e:5e:6c:99", dst=at.gateway_mac)
    return [
        *_from_client(at, [ip(each, at.server) / udp for each in sources]),
        *_from_client(at, [ip(each, at.server6) / udp for each in sources6]),
        bytes(strange / ip(at.client, at.server) / udp),
        bytes(strange / ip(at.client6, at.server6) / udp),
    ]


@_once
def poison(at: Scene) -> list[bytes]:
    """ARP and ND by which a client claims addresses that are not its own."""
    frames = []
    direct = Ether(src=at.client_mac, dst=at.gateway_mac)
    for victim in (at.gateway, at.other, at.uplink, at.server):
        sender = {"hwsrc": at.client_mac, "psrc": victim}
        frames += [
            direct / ARP(op=2, pdst=at.gateway, **sender),
            Ether(src=at.client_mac, dst=BROADCAST) / ARP(op=1, pdst=victim, **sender),
        ]
    option = inet6.ICMPv6NDOptDstLLAddr(lladdr=at.client_mac)
    frames += [
        direct
        / IPv6(src=victim, dst=at.gateway6, hlim=255)
        / inet6.ICMPv6ND_NA(tgt=victim, R=1, S=1, O=1)
        / option
        for victim in (at.gateway6, at.other6, at.uplink6, at.server6)
    ]
    return [bytes(frame) for frame in frames]


@_once
def foreign_dns(at: Scene) -> list[bytes]:
    """Questions to resolvers the client was not given: UDP, TCP, DoT, DoQ."""
    question = DNS(rd=1, qd=DNSQR(qname=MARKER + b".example.com"))
    packets = []
    for target in (FOREIGN, at.server, at.router, FOREIGN6, at.server6, at.router6):
        base = ip(at.client6 if ":" in target else at.client, target)
        packets += [
            base / UDP(sport=4053, dport=53) / question,
            base / UDP(sport=4853, dport=853) / PROBE,
            base / TCP(sport=4053, dport=53, flags="S") / PROBE,
            base / TCP(sport=4853, dport=853, flags="S") / PROBE,
        ]
    return _from_client(at, packets)


@_once
def strong_host(at: Scene) -> list[bytes]:
    """From the LAN to addresses the NetVM has elsewhere (E4, CVE-2019-14899).

    Any answer tells the neighbour that the address is there.  The sources are
    on the link and beyond it.
    """
    inner = [at.gateway, at.client, at.other, "127.0.0.1"]
    inner += [at.gateway6, at.client6, at.other6, "::1"]
    packets = _knocks(at.neighbour, at.neighbour6, inner)
    packets += _knocks(at.router, at.router6, inner)
    packets += _knocks(at.server, at.server6, inner)
    return _from_neighbour(at, packets)


@_once
def transit(at: Scene) -> list[bytes]:
    """From the LAN through the NetVM to anywhere else, its clients included."""
    beyond = [at.server, at.router, at.client, at.other, FOREIGN, "10.139.1.1"]
    beyond += [at.server6, at.router6, at.client6, at.other6, FOREIGN6]
    return _from_neighbour(at, _knocks(at.neighbour, at.neighbour6, beyond))


@_once
@_once
def impersonation(at: Scene) -> list[bytes]:
    """From the LAN in the NetVM's own name, to itself, its client and beyond (R16).

    The kernel takes no such source from a wire, unless accept_local tells it to.
    """
    targets = [at.uplink, at.client, at.server, at.uplink6, at.client6, at.server6]
    packets = _knocks(at.uplink, at.uplink6, targets)
    packets += _knocks(at.gateway, at.gateway6, targets)
    return _from_neighbour(at, packets)


@_once
def disclosure(at: Scene) -> list[bytes]:
    """ARP and ND questions on the LAN for addresses on the NetVM's other links."""
    asking = Ether(src=at.neighbour_mac, dst=BROADCAST)
    frames = [
        asking / ARP(op=1, hwsrc=at.neighbour_mac, psrc=source, pdst=target)
        for target in (at.gateway, at.client, at.other)
        for source in (at.neighbour, "0.0.0.0", at.server)
    ]
    frames += [
        Ether(src=at.neighbour_mac, dst=at.uplink_mac)
        / IPv6(src=at.neighbour6, dst=target, hlim=255)
        / inet6.ICMPv6ND_NS(tgt=target)
        / inet6.ICMPv6NDOptSrcLLAddr(lladdr=at.neighbour_mac)
        for target in (at.gateway6, at.client6, at.other6)
    ]
    return [bytes(frame) for frame in frames]


@_once
def injection(at: Scene) -> list[bytes]:
    """Router advertisements and redirects by which a neighbour bends routes."""
    quoted = ip(at.uplink, at.server) / UDP(sport=5, dport=6) / PROBE
    local = "fe80::66"
    advertisement = (
        IPv6(src=local, dst="ff02::1", hlim=255)
        / inet6.ICMPv6ND_RA(routerlifetime=1800, prf=1)
        / inet6.ICMPv6NDOptSrcLLAddr(lladdr=at.neighbour_mac)
        / inet6.ICMPv6NDOptPrefixInfo(prefix="2001:db8:bad::", prefixlen=64)
        / inet6.ICMPv6NDOptRDNSS(dns=[at.neighbour6])
    )
    redirect = ip(at.router, at.uplink) / ICMP(type=5, code=1, gw=at.neighbour) / quoted
    redirect6 = IPv6(src="fe80::1", dst=at.uplink6, hlim=255)
    redirect6 /= inet6.ICMPv6ND_Redirect(tgt=local, dst=at.server6)
    return _from_neighbour(at, [advertisement, redirect, redirect6])


def ip(source: str, target: str) -> Packet:
    """Return the header of the target's family."""
    return (IPv6 if ":" in target else IP)(src=source, dst=target)


def ping(base: Packet) -> Packet:
    """Return a marked echo request on top of a header."""
    if isinstance(base, IPv6):
        return base / inet6.ICMPv6EchoRequest(data=bytes(PROBE))
    return base / ICMP() / PROBE


def _knocks(source: str, source6: str, targets: Sequence[str]) -> list[Packet]:
    ports = {"sport": 12345, "dport": 12345}
    knocks = [TCP(flags=flags, **ports) / PROBE for flags in ("S", "SA", "A")]
    knocks += [UDP(**ports) / PROBE, UDP(sport=12345, dport=53) / PROBE]
    packets = []
    for target in targets:
        base = ip(source6 if ":" in target else source, target)
        packets += [*(base / each for each in knocks), ping(base)]
    return packets


def _from_client(at: Scene, packets: Sequence[Packet]) -> list[bytes]:
    ether = Ether(src=at.client_mac, dst=at.gateway_mac)
    return [bytes(ether / packet) for packet in packets]


def _from_neighbour(at: Scene, packets: Sequence[Packet]) -> list[bytes]:
    ether = Ether(src=at.neighbour_mac, dst=at.uplink_mac)
    return [bytes(ether / packet) for packet in packets]

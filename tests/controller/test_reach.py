# SPDX-License-Identifier: GPL-2.0-or-later
"""The sets of a policy say of every packet what `explain` says of one."""

import random
from ipaddress import IPv4Address, IPv6Address

import pytest

from controller.explain import hops
from controller.hop import Verdict
from controller.nowhere import RESOLVERS
from controller.policy import read
from controller.reach import Reach
from proof.explore import value_at
from proof.fields import DPORT, ORIGINAL_DST, PROTO, SPORT
from rules.decide import ICMP, ICMPV6, TCP, UDP, Packet
from rules.model import Address, Family

HOME = """\
[domains.net]
personality = "netvm"
uplink = "lab"
[domains.fw]
personality = "firewall"
netvm = "net"
firewall = ["drop dst4=192.0.2.0/25", "drop proto=udp dstports=1-52", "accept"]
[domains.work]
netvm = "fw"
firewall = [
  "accept specialtarget=dns",
  "accept dsthost=www.example.com proto=tcp dstports=443",
  "drop proto=icmp icmptype=8",
  "accept dst4=192.0.2.0/24",
  "accept dst4=10.137.0.0/24",
  "accept dst6=2001:db8::/64 proto=tcp",
  "accept proto=icmp",
]
[domains.bare]
netvm = "net"
ipv6 = false
[domains.tor]
personality = "tor"
netvm = "net"
[domains.anon]
netvm = "tor"
[domains.vault]
"""
NOW = 1000
WWW4, WWW6 = IPv4Address("198.51.100.80"), IPv6Address("2001:db8:1::80")
NAMES = {"www.example.com": frozenset({WWW4, WWW6})}
DOMAINS = read(HOME, file="home.toml", qids={}, now=NOW)
PLACES: tuple[Address, ...] = (
    *(WWW4, WWW6, *RESOLVERS),
    *(each for d in DOMAINS for each in (d.ip4, d.ip6)),
    *map(IPv4Address, ("192.0.2.1", "192.0.2.200", "203.0.113.1", "224.0.0.1")),
    *map(IPv4Address, ("127.0.0.1", "0.0.0.0", "169.254.1.1", "192.0.3.0")),
    *map(IPv6Address, ("2001:db8::1", "2001:db8:0:1::", "ff02::1", "fe80::1", "::1")),
)


def packets(draw: random.Random) -> list[Packet]:
    found = []
    for place in PLACES:
        icmp = ICMP if isinstance(place, IPv4Address) else ICMPV6
        for proto in (TCP, UDP):
            ports = (53, 443, draw.randrange(65536))
            found += [Packet(place, proto, port) for port in ports]
        kinds = (8, 128, draw.randrange(256))
        found += [Packet(place, icmp, icmp_type=kind) for kind in kinds]
        found.append(Packet(place, 47))
    return found


@pytest.mark.parametrize("name", ["work", "bare", "fw", "anon", "vault"])
def test_a_packet_is_in_the_set_if_explain_lets_it_out(name: str) -> None:
    sets = {version: Reach(version, NAMES, NOW) for version in Family}
    said = set()
    for packet in packets(random.Random(name)):
        reach = sets[Family(packet.dst.max_prefixlen)]
        point = {
            ORIGINAL_DST: int(packet.dst),
            PROTO: packet.proto,
            DPORT: packet.port or 0,
            SPORT: (packet.icmp_type or 0) << 8,
        }
        *_, last = hops(DOMAINS, DOMAINS.named(name), packet, NAMES, NOW)
        passes = last.verdict is Verdict.ACCEPT
        said.add(passes)

        assert value_at(reach.space, reach.of(DOMAINS, name), point) is passes, packet

    assert said == ({False} if name == "vault" else {True, False})

# SPDX-License-Identifier: GPL-2.0-or-later
"""A client sends errors of ICMP about flows of its own, and about nobody else's.

conntrack takes an error for a part of the flow that it quotes, so to the server it
would come from whoever opened that.
"""

import socket
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from rules.guard import GUARD_TEXT
from rules.objects import GUARD
from tests.kernel.cabled import CLIENTS, MACS, SERVER, VIF_MAC, cabled, known, nft

pytestmark = pytest.mark.kernel

PATIENCE = 20.0  # seconds; only a failing test waits that long
ROUTER = "02:00:00:00:00:02"
TYPES = {4: 0x0800, 6: 0x86DD}
ROUTES = f"""
neighbour add {SERVER[4]} dev eth0 lladdr {ROUTER}
neighbour add {SERVER[6]} dev eth0 lladdr {ROUTER}
route add {SERVER[4]} dev eth0
route add {SERVER[6]} dev eth0
"""
FORWARDING = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")
HEADERS = 14 + 40  # bytes of Ethernet and IPv6
FIRST, LAST = b"the first", b"the last"
UNGUARDED = f"flush chain {GUARD} odd"


@pytest.fixture(autouse=True)
def gateway() -> Iterator[None]:
    """A guard alone: whatever it lets pass goes on to the server."""
    macs = {**dict.fromkeys(MACS, VIF_MAC), "eth0": "02:00:00:00:00:01"}
    with cabled(macs, ROUTES):
        for key in FORWARDING:
            Path("/proc/sys/net", key).write_text("1")
        nft(GUARD_TEXT + "".join(known()))
        yield


def datagram(source: str, target: str, text: bytes, version: int) -> Packet:
    ip = {4: IP, 6: IPv6}[version]
    return ip(src=source, dst=target) / UDP(sport=4000, dport=4000) / Raw(text)


def error(sender: str, about: str, version: int) -> Packet:
    """Return a client's error about the server's answer to a client."""
    quoted = datagram(SERVER[version], CLIENTS[about][version], b"an answer", version)
    ends = {"src": CLIENTS[sender][version], "dst": SERVER[version]}
    if version == 4:
        return IP(**ends) / ICMP(type=3, code=3) / quoted
    return IPv6(**ends) / ICMPv6DestUnreach(code=4) / quoted


def reaches(sender: str, about: str, version: int) -> bool:
    """Whether an error reaches the server of ``about``, who sends before and after."""
    own = CLIENTS[about][version]
    sent = [
        (about, datagram(own, SERVER[version], FIRST, version)),
        (sender, error(sender, about, version)),
        (about, datagram(own, SERVER[version], LAST, version)),
    ]
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as server,
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out,
    ):
        server.bind(("far-eth0", TYPES[version]))
        server.settimeout(PATIENCE)
        for device, packet in sent:
            frame = bytes(Ether(src=MACS[device], dst=VIF_MAC) / packet)
            out.sendto(frame, (f"far-{device}", 0))
        to, found = ip_address(SERVER[version]).packed, [FIRST]
        while not found[-1].endswith(LAST):
            frame = server.recv(2048)
            found += [frame] if to in frame[:HEADERS] else []  # else of a link
    assert found[1].endswith(FIRST)
    return len(found[1:]) == len(sent)


@pytest.mark.parametrize("version", [4, 6])
def test_a_client_sends_errors_about_its_own_flows_alone(version: int) -> None:
    """The control: without the rule it does."""
    assert reaches("vif2.0", "vif2.0", version)
    assert not reaches("vif1.0", "vif2.0", version)
    nft(UNGUARDED)
    assert reaches("vif1.0", "vif2.0", version)

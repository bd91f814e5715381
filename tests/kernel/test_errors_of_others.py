# SPDX-License-Identifier: GPL-2.0-or-later
"""A client sends errors of ICMP about flows of its own, and about nobody else's.

conntrack takes an error for a part of the flow that it quotes, so to the server it
would come from whoever opened that.
"""

import os
import socket
import subprocess
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
from tests.proof.namespaces_apart import apart

pytestmark = pytest.mark.kernel

PATIENCE = 20.0  # seconds; only a failing test waits that long
VIF_MAC, ROUTER = "fe:ff:ff:ff:ff:ff", "02:00:00:00:00:02"
MACS = {"vif1.0": "00:16:3e:5e:6c:00", "vif2.0": "00:16:3e:5e:6c:01"}
CLIENTS = {
    "vif1.0": {4: "10.137.0.5", 6: "fd09:24ef:4179::a89:5"},
    "vif2.0": {4: "10.137.0.6", 6: "fd09:24ef:4179::a89:6"},
}
SERVER = {4: "198.51.100.9", 6: "2001:db8:9::9"}
TYPES = {4: 0x0800, 6: 0x86DD}
CABLE = """
link add {name} address {mac} type veth peer name far-{name}
link set {name} group {group} up
link set far-{name} up
"""
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
    processors = os.sched_getaffinity(0)
    # A veth hands over on the processor of who sends, in order.
    os.sched_setaffinity(0, {min(processors)})
    with apart():
        for key in FORWARDING:
            Path("/proc/sys/net", key).write_text("1")
        macs = {**dict.fromkeys(MACS, VIF_MAC), "eth0": "02:00:00:00:00:01"}
        lines = "".join(
            CABLE.format(name=n, mac=m, group=2 if n in MACS else 1)
            for n, m in macs.items()
        )
        tool = ["ip", "-batch", "-"]
        subprocess.run(tool, input=lines + ROUTES, text=True, check=True)
        nft(GUARD_TEXT + "".join(known()))
        yield
    os.sched_setaffinity(0, processors)


def known() -> Iterator[str]:
    for device, addresses in CLIENTS.items():
        for version, address in addresses.items():
            framed = f"{device} . {MACS[device]} . {address}"
            yield f"add element {GUARD} clients{version} {{ {framed} }}\n"


def nft(script: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=script, text=True, check=True)


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

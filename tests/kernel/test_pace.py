# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast a client opens flows is limited for each vif, and known flows pay nothing.

Frames come in by two vifs; what passes is counted behind the guard, and what does
not by the guard itself.
"""

import re
import socket
import struct
import subprocess
from collections.abc import Iterator
from time import monotonic

import pytest

from rules.objects import GUARD
from rules.pace import BURST, pace
from tests.proof.namespaces_apart import apart

pytestmark = pytest.mark.kernel

HERE = "10.137.255.254"
VIF_MAC, CLIENT_MAC = bytes.fromhex("feffffffffff"), bytes.fromhex("00163e5e6c00")
CLIENTS = {"vif1.0": "10.137.0.5", "vif2.0": "10.137.0.6"}
TABLE = 800
AT_ONCE = TABLE // BURST
MANY = 20 * AT_ONCE
PATIENCE = 20.0  # seconds; only a failing test waits that long
COUNTED = re.compile(
    r'counter packets (\d+) bytes \d+(?: drop| accept) comment "([^"]+)"'
)
CABLE = """
link add {vif} address fe:ff:ff:ff:ff:ff type veth peer name far-{vif}
link set {vif} up
link set far-{vif} up
route add {address} dev {vif}
"""
COUNT = """
add table ip t
add chain ip t in { type filter hook input priority 0; policy drop; }
add rule ip t in iifname vif1.0 ct state new,established counter accept comment "vif1.0"
add rule ip t in iifname vif2.0 ct state new,established counter accept comment "vif2.0"
"""


@pytest.fixture(autouse=True)
def gateway() -> Iterator[None]:
    with apart():
        cables = (CABLE.format(vif=v, address=a) for v, a in CLIENTS.items())
        lines = f"link set lo up\naddress add {HERE}/32 dev lo\n{''.join(cables)}"
        subprocess.run(["ip", "-batch", "-"], input=lines, text=True, check=True)
        nft(f"add table {GUARD}\n{pace(TABLE)}{COUNT}")
        yield


def nft(script: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=script, text=True, check=True)


def passed(vif: str, ports: range) -> int:
    """Send a packet from each port; return how many pass, when all are counted."""
    ends = map(socket.inet_aton, (CLIENTS[vif], HERE))
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 0, 0, 64, 17, 0, *ends)
    words = struct.unpack("!10H", head)
    check = sum(words) % 0xFFFF ^ 0xFFFF
    head = head[:10] + struct.pack("!H", check) + head[12:]
    before = counted()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
        out.bind((f"far-{vif}", 0))
        for port in ports:
            udp = struct.pack("!HHHH", port, 9, 8, 0)
            out.send(VIF_MAC + CLIENT_MAC + b"\x08\0" + head + udp)
    deadline = monotonic() + PATIENCE
    while sum((now := counted()).values()) < sum(before.values()) + len(ports):
        assert monotonic() < deadline, (before, now)
    return now[vif] - before[vif]


def counted() -> dict[str, int]:
    argv = ["nft", "list", "ruleset"]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    return {name: int(number) for number, name in COUNTED.findall(done.stdout)}


def test_a_client_opens_so_many_flows_at_once_and_no_more() -> None:
    """And one beside it, who keeps within that, opens all it wants meanwhile."""
    assert passed("vif1.0", range(1, AT_ONCE + 1)) == AT_ONCE
    assert passed("vif1.0", range(1000, 1000 + MANY)) < MANY
    assert passed("vif2.0", range(1, AT_ONCE + 1)) == AT_ONCE


def test_packets_of_known_flows_are_not_counted() -> None:
    assert passed("vif1.0", range(1, AT_ONCE + 1)) == AT_ONCE
    assert passed("vif1.0", range(1000, 1000 + MANY)) < MANY

    for _ in range(20):
        assert passed("vif1.0", range(1, AT_ONCE + 1)) == AT_ONCE


def test_who_is_held_opens_no_flow_and_keeps_those_it_has() -> None:
    assert passed("vif1.0", range(1, 11)) == 10

    nft(f"add element {GUARD} held {{ vif1.0 }}")
    assert passed("vif1.0", range(11, 21)) == 0
    assert passed("vif1.0", range(1, 11)) == 10
    assert passed("vif2.0", range(1, 11)) == 10

    nft(f"flush set {GUARD} held")
    assert passed("vif1.0", range(11, 21)) == 10


def test_loading_it_again_keeps_the_pace_and_who_is_held() -> None:
    """As every start of an agent does."""
    nft(f"add element {GUARD} held {{ vif2.0 }}")
    assert passed("vif1.0", range(1, AT_ONCE + 1)) == AT_ONCE

    nft(pace(TABLE))

    assert passed("vif1.0", range(1000, 1000 + MANY)) < MANY
    assert passed("vif2.0", range(1, 11)) == 0

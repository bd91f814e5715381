# SPDX-License-Identifier: GPL-2.0-or-later
"""A client cannot be all the neighbours that a gateway has room for.

The kernel remembers whoever asks for its address, and all links share the room.
"""

import socket
import struct
import subprocess
from collections.abc import Iterator
from ipaddress import IPv6Address
from pathlib import Path
from time import monotonic

import pytest

from rules.guard import GUARD_TEXT
from rules.objects import GUARD
from tests.kernel.cabled import VIF_MAC, cable, cabled, ip, nft

pytestmark = pytest.mark.kernel

PATIENCE = 20.0  # seconds; only a failing test waits that long
ROUTER = IPv6Address("fe80::fcff:ffff:feff:ffff")
VIF_BYTES = bytes.fromhex(VIF_MAC.replace(":", ""))
CLIENT_MAC = bytes.fromhex("00163e5e6c00")
VIFS = ("vif1.0", "vif2.0")
SOLICITATION, ICMPV6, HOPS = 135, 58, 255
AT_ONCE, MANY, FEW = 20, 200, 10


@pytest.fixture(autouse=True)
def gateway() -> Iterator[None]:
    with cabled({}):
        Path("/proc/sys/net/ipv6/conf/default/addr_gen_mode").write_text("1")
        ip(*(cable(vif, VIF_MAC) for vif in VIFS))
        deadline = monotonic() + PATIENCE
        for vif in VIFS:
            ip(f"address add {ROUTER}/64 dev {vif} nodad")
            while not remembered(vif, range(1)):  # a link takes a moment to be up
                assert monotonic() < deadline
        nft(GUARD_TEXT)
        yield


def remembered(vif: str, senders: range) -> int:
    """Ask for the gateway from many addresses; return how many it knows."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
        out.bind((f"far-{vif}", 0))
        for number in senders:
            out.send(question(IPv6Address("fe80::1:0") + number))
    argv = ["ip", "-6", "neighbour", "show", "dev", vif]
    return len(subprocess.check_output(argv, text=True).splitlines())


def question(sender: IPv6Address) -> bytes:
    body = struct.pack("!BBHI", SOLICITATION, 0, 0, 0) + ROUTER.packed
    body += bytes((1, 1)) + CLIENT_MAC
    ends = sender.packed + ROUTER.packed
    pseudo = ends + struct.pack("!II", len(body), ICMPV6) + body
    check = sum(struct.unpack(f"!{len(pseudo) // 2}H", pseudo)) % 0xFFFF ^ 0xFFFF
    body = body[:2] + struct.pack("!H", check) + body[4:]
    head = struct.pack("!IHBB", 6 << 28, len(body), ICMPV6, HOPS)
    return VIF_BYTES + CLIENT_MAC + b"\x86\xdd" + head + ends + body


def test_a_client_is_no_more_than_a_few_neighbours() -> None:
    """And another one is heard meanwhile."""
    assert AT_ONCE <= remembered("vif1.0", range(MANY)) < MANY // 2
    assert remembered("vif2.0", range(FEW)) == FEW


def test_without_the_limit_it_is_as_many_as_it_likes() -> None:
    """The positive control."""
    nft(f"insert rule {GUARD} from-vif ip6 saddr fe80::/10 return")

    assert remembered("vif1.0", range(MANY)) == MANY

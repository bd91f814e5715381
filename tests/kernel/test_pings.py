# SPDX-License-Identifier: GPL-2.0-or-later
"""A client that pings its gateway without end takes no answer from another one."""

import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from agent.nft import Nft
from rules.compile import compile_client
from rules.constant import constant
from rules.facts import Client, Facts, Gateway
from rules.ground import Ground
from rules.model import Action
from rules.pace import USUAL
from rules.ruleset import ruleset
from rules.transaction import difference
from tests.kernel.cabled import VIF_MAC, cabled

pytestmark = pytest.mark.kernel

HERE = IPv4Address("10.137.255.254")
CLIENT_MAC = "00:16:3e:5e:6c:00"
CLIENTS = {"vif1.0": IPv4Address("10.137.0.5"), "vif2.0": IPv4Address("10.137.0.6")}
MANY, FEW = 1000, 3


@pytest.fixture(autouse=True)
def gateway() -> Iterator[None]:
    routes = (f"route add {address} dev {vif}" for vif, address in CLIENTS.items())
    here = f"address add {HERE}/32 dev lo"
    with cabled(dict.fromkeys(CLIENTS, VIF_MAC), here, *routes):
        firewall = Nft()
        firewall.load(constant(Gateway.ROUTER, USUAL))
        found = tuple(
            Client(vif, socket.if_nametoindex(vif), CLIENT_MAC, address)
            for vif, address in CLIENTS.items()
        )
        facts = Facts(found, here=frozenset({HERE}))
        objects = dict(ruleset(frozenset(), facts))
        for address in CLIENTS.values():
            objects |= compile_client(address, Ground((), Action.DROP))
        firewall.load(difference(None, objects))
        yield


def answered(vif: str, pings: int) -> int:
    """Ping the gateway so many times; return how many it answers."""
    macs = bytes.fromhex((VIF_MAC + CLIENT_MAC).replace(":", ""))
    ends = CLIENTS[vif].packed + HERE.packed
    before = answers()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
        out.bind((f"far-{vif}", 0))
        for number in range(pings):
            echo = with_sum(struct.pack("!BBHHH", 8, 0, 0, 1, number), 2)
            head = struct.pack("!BBHHHBBH", 0x45, 0, 28, 0, 0, 64, 1, 0) + ends
            out.send(macs + b"\x08\0" + with_sum(head, 10) + echo)
    return answers() - before


def with_sum(data: bytes, place: int) -> bytes:
    check = sum(struct.unpack(f"!{len(data) // 2}H", data)) % 0xFFFF ^ 0xFFFF
    return data[:place] + struct.pack("!H", check) + data[place + 2 :]


def answers() -> int:
    names, numbers = (
        line.split()
        for line in Path("/proc/thread-self/net/snmp").read_text().splitlines()
        if line.startswith("Icmp:")
    )
    return int(numbers[names.index("OutEchoReps")])


def test_who_pings_too_often_is_not_answered_and_others_are() -> None:
    assert 0 < answered("vif1.0", MANY) < MANY // 2
    assert answered("vif2.0", FEW) == FEW

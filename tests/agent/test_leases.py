# SPDX-License-Identifier: GPL-2.0-or-later
"""What clients ask by is opened with rights that are given up at once.

Each agent is a process of its own, for these rights do not come back.  What real
clients get is in tests/kernel/test_clients_that_ask.py.
"""

import json
import select
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from controller import namespaces
from controller.confine import rights_of_an_agent

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("net")]

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0  # seconds; only a failing test waits that long
MAC = "00:16:3e:5e:6c:00"
NET_ADMIN, NET_RAW = 12, 13
Shell = Callable[[str], str]
BEGIN = """
import json, os, socket, sys
sys.path.insert(0, {root!r})
from agent import leases
def rights():
    lines = open("/proc/self/status").read().splitlines()
    found = dict(line.split(":", 1) for line in lines)
    return [int(found[x], 16) for x in ("CapInh", "CapPrm", "CapEff", "CapAmb")]
"""
SHOW = """
before = rights()
made = leases.Leases()
try:
    socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    again = True
except PermissionError:
    again = False
print(json.dumps([before, rights(), len(made._sockets), again]))
"""
ADVERTISE = """
import select
from ipaddress import ip_address
from rules.facts import Client, Facts
leases.PERIOD = 0.05
made = leases.Leases()
own, own6 = ip_address("10.137.0.5"), ip_address("fd09::5")
client = Client("vif3.0", {index}, {mac!r}, own, own6)
made.serve(Facts(clients=(client,)), (ip_address("10.137.0.9"),))
print("ready", flush=True)
while True:
    select.select([made], [], [])
    made.handle()
"""


def argv(program: str, *rights: str) -> list[str]:
    begin = BEGIN.format(root=str(ROOT))
    return ["setpriv", *rights, "--", "/usr/bin/python3", "-I", "-c", begin + program]


def said(*rights: str) -> tuple[list[int], list[int], int, bool, str]:
    done = subprocess.run(
        argv(SHOW, *rights), check=True, capture_output=True, text=True
    )
    before, after, sockets, again = json.loads(done.stdout)
    return before, after, sockets, again, done.stderr


def test_an_agent_keeps_what_it_opened_and_not_the_rights() -> None:
    before, after, sockets, again, _ = said(*rights_of_an_agent(62001))

    assert all(each & 1 << NET_RAW for each in before)
    assert after == [1 << NET_ADMIN] * 4
    assert (sockets, again) == (3, False)


def test_without_the_rights_the_agent_goes_on() -> None:
    """It says what its clients do not get."""
    only = [x.replace(",+net_raw,+net_bind_service", "") for x in rights_of_an_agent(9)]
    _, after, sockets, _, errors = said(*only)

    assert after == [1 << NET_ADMIN] * 4
    assert sockets == 0
    for what in ("DHCP", "DHCPv6", "router advertisements"):
        assert f"no {what} for clients: " in errors


def test_a_router_says_that_it_is_there_unasked(other_net: Path, sh: Shell) -> None:
    """RFC 4861, 6.2.4: or the way out ends after its lifetime."""
    sh("ip link add vif3.0 type veth peer name eth0")
    sh(f"ip link set eth0 netns {other_net}")
    sh("ip link set vif3.0 up")
    sh("ip address add fe80::fcff:ffff:feff:ffff/64 dev vif3.0 nodad")
    with namespaces.inside(other_net):
        sh("ip link set eth0 up")
        heard = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x86DD))
        heard.bind(("eth0", 0))
    index = socket.if_nametoindex("vif3.0")
    words = argv(ADVERTISE.format(index=index, mac=MAC), *rights_of_an_agent(62001))
    with heard, subprocess.Popen(words, stdout=subprocess.PIPE) as agent:
        try:
            while (frame := received(heard))[54] != 134:
                pass
        finally:
            agent.kill()

    assert frame[21] == 255
    assert frame[22:38] == socket.inet_pton(
        socket.AF_INET6, "fe80::fcff:ffff:feff:ffff"
    )


def received(heard: socket.socket) -> bytes:
    assert select.select([heard], [], [], PATIENCE)[0]
    return heard.recv(2048).ljust(55, b"\0")

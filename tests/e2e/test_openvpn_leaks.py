# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever happens to an OpenVPN tunnel, nothing but the tunnel leaves its VM.

One AppVM floods a destination through the tunnel meanwhile.  The judge captures all
that comes out of the VPN's uplink.  Classes: L2 L4 L5 L6 L7 X1 X2 R2 R3 (leaks.md, 2).
"""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import ip_address

import pytest

from tests.e2e.machine import WEB4, until
from tests.e2e.openvpn_room import (
    OTHER_END,
    PATIENCE,
    Room,
    kill,
    leaked,
    room,
    sent,
    tunnelled,
)
from tests.lab.prober import Flood
from tests.leaks.rounds import Record, happen, uplink
from tests.vpn.openvpn_server import Server

pytestmark = pytest.mark.kernel

FLOODED, RATE = 9009, 500
ROUNDS = 24
LONG = 120.0  # seconds for a command on a machine that is busy
OTHER_PORT, OTHER_NET = 1195, "10.9.0"


@pytest.fixture(scope="module")
def _running() -> Iterator[Room]:
    with room() as made:
        more = (f'push "dhcp-option DNS {OTHER_NET}.1"',)
        inside = (f"server {OTHER_NET}.0 255.255.255.0",)
        net, place = made.machine.internet.net, (OTHER_END, OTHER_PORT)
        other = Server(made.pki, net, *place, more=more, inside=inside)
        other.start()
        try:
            made.give_good()
            made.machine.up()
            yield made
            made.machine.does("down")
        finally:
            other.kill()


@pytest.fixture
def vpn(_running: Room) -> Iterator[Room]:
    until(_running.flows, PATIENCE)
    yield _running
    _running.machine.hang_up()


def flood(made: Room) -> Flood:
    client, target = made.machine.net("work"), made.machine.internet.net
    return Flood(client, target, ip_address(WEB4), FLOODED, rate=RATE)


def tells(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def tool(made: Room, words: str) -> None:
    with suppress(subprocess.CalledProcessError):  # it may be gone this moment
        made.machine.tool("sys-vpn", *words.split())


def succeeds(made: Room, *words: str) -> None:
    """Give a command until it succeeds, whoever is killed meanwhile."""
    until(lambda: made.machine.ravelin(*words, within=LONG).status == 0, LONG)


def takes(made: Room) -> None:
    succeeds(made, "up", str(made.machine.policy))


def soft_restart(made: Room) -> None:
    tells(made.daemon(), signal.SIGUSR1)


def hard_restart(made: Room) -> None:
    tells(made.daemon(), signal.SIGHUP)


def killed_daemon(made: Room) -> None:
    kill(made.daemon())


def killed_agent(made: Room) -> None:
    kill(made.agent())


def killed_both(made: Room) -> None:
    pids = made.agent(), made.daemon()
    for pid in pids:
        kill(pid)


def ended_agent(made: Room) -> None:
    tells(made.agent(), signal.SIGTERM)


def all_read_anew(made: Room) -> None:
    tells(made.agent(), signal.SIGHUP)


def removed_device(made: Room) -> None:
    tool(made, "ip link delete ovpn0")


def fallen_device(made: Room) -> None:
    tool(made, "ip link set ovpn0 down")
    kill(made.daemon())


def flapping_uplink(made: Room) -> None:
    tool(made, "ip link set eth0 down")
    tool(made, "ip link set eth0 up")


def injected_routes(made: Room) -> None:
    """TunnelVision (CVE-2024-3661): what DHCP's option 121 would put into main."""
    gateway = made.machine.status()["sys-net"]["ip"]
    for to in ("0.0.0.0/1", "128.0.0.0/1", f"{WEB4}/32"):
        tool(made, f"ip route replace {to} via {gateway} dev eth0 onlink")


def local_network(made: Room) -> None:
    """TunnelCrack, LocalNet (CVE-2023-36672): the web's prefix is on the link."""
    tool(made, "ip route replace 198.51.100.0/24 dev eth0")


def lost_server(made: Room) -> None:
    made.provider.kill()
    until(lambda: made.vpn()["state"] != "up", PATIENCE)
    made.provider.start()


def another_server(made: Room) -> None:
    """And back again; one address is carried at a time."""
    made.give_good(f"{OTHER_END} {OTHER_PORT} udp")
    takes(made)
    until(made.flows, PATIENCE)
    made.give_good()
    takes(made)


def changed_rules(made: Room) -> None:
    """It fails if the agent is killed meanwhile."""
    rule = ("accept", "proto=udp", "dstports=4434")
    made.machine.ravelin("firewall", "work", "add", *rule, within=LONG)
    made.machine.ravelin("firewall", "work", "del", *rule, within=LONG)


def bad_profile(made: Room) -> None:
    made.give("remote \\")
    takes(made)
    until(lambda: made.vpn()["state"] == "error", PATIENCE)
    made.give_good()
    takes(made)


def restarted_domain(made: Room) -> None:
    succeeds(made, "restart", "sys-vpn")


FAULTS = (
    soft_restart,
    hard_restart,
    killed_daemon,
    killed_agent,
    killed_both,
    ended_agent,
    all_read_anew,
    removed_device,
    fallen_device,
    flapping_uplink,
    injected_routes,
    local_network,
    lost_server,
    another_server,
    changed_rules,
    bad_profile,
    restarted_domain,
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_nothing_but_the_tunnel_leaves(
    vpn: Room, fault: Callable[[Room], None]
) -> None:
    """And afterwards the client flows again, with no hand."""
    with vpn.sniffer() as seen, flood(vpn) as flooded:
        fault(vpn)
        until(vpn.flows, PATIENCE)
        # Some of the flood, on both sides of the tunnel.
        enough = len(seen.packets) + 100
        until(lambda: len(seen.packets) >= enough, PATIENCE)

    assert leaked(seen) == []
    assert tunnelled(seen)
    assert flooded.result.received > 0


def test_nothing_leaks_whatever_follows_whatever(vpn: Room) -> None:
    record = Record("openvpn")
    with flood(vpn):
        leaks = happen(
            vpn,
            record,
            FAULTS,
            watch=lambda: uplink(vpn.sniffer(), leaked),
            flows=lambda: until(vpn.flows, PATIENCE * 2),
            fallen=vpn.machine.fallen,
            rounds=ROUNDS,
        )

    assert leaks == [], record.seed


def test_the_judge_sees_a_leak(vpn: Room) -> None:
    """The positive control: without guard, rules and routing it is all in clear."""
    agent = vpn.agent()
    os.kill(agent, signal.SIGSTOP)  # or it would put them back
    try:
        vpn.machine.tool("sys-vpn", "nft", "flush", "ruleset")
        rule = ["rule", "add", "pref", "1", "lookup", "main"]
        vpn.machine.tool("sys-vpn", "ip", *rule)
        with vpn.sniffer() as seen, flood(vpn):
            seen.wait(lambda packet: packet.marked and not packet.outgoing)
    finally:
        os.kill(agent, signal.SIGCONT)

    assert [packet for packet in sent(seen) if packet.marked]
    assert leaked(seen)
    vpn.machine.does("restart", "sys-vpn")

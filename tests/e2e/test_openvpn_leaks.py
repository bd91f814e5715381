# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever happens to an OpenVPN tunnel, nothing but the tunnel leaves its VM.

One AppVM floods a destination through the tunnel meanwhile.  The judge captures all
that comes out of the VPN's uplink.  Classes: L4 L5 L6 X1 X2 X5 R7 (leaks.md, 2).
LEAK_ROUNDS sets how often a thing happens in one test.
"""

import os
import signal
from collections.abc import Callable, Iterator
from ipaddress import ip_address

import pytest

from tests.e2e.machine import WEB4, until
from tests.e2e.openvpn_room import (
    PATIENCE,
    Room,
    kill,
    leaked,
    room,
    sent,
    tunnelled,
)
from tests.lab.prober import Flood

pytestmark = pytest.mark.kernel

FLOODED, RATE = 9009, 500
TIMES = int(os.environ.get("LEAK_ROUNDS", "3"))


@pytest.fixture(scope="module")
def _running() -> Iterator[Room]:
    with room() as made:
        made.give_good()
        made.machine.up()
        yield made
        made.machine.does("down")


@pytest.fixture
def vpn(_running: Room) -> Iterator[Room]:
    until(_running.flows, PATIENCE)
    yield _running
    _running.machine.hang_up()


def flood(made: Room) -> Flood:
    client, target = made.machine.net("work"), made.machine.internet.net
    return Flood(client, target, ip_address(WEB4), FLOODED, rate=RATE)


def soft_restart(made: Room) -> None:
    os.kill(made.daemon(), signal.SIGUSR1)


def hard_restart(made: Room) -> None:
    os.kill(made.daemon(), signal.SIGHUP)


def killed_daemon(made: Room) -> None:
    kill(made.daemon())


def killed_agent(made: Room) -> None:
    kill(made.agent())


def removed_device(made: Room) -> None:
    made.machine.tool("sys-vpn", "ip", "link", "delete", "ovpn0")


def fallen_device(made: Room) -> None:
    made.machine.tool("sys-vpn", "ip", "link", "set", "ovpn0", "down")
    kill(made.daemon())


def flapping_uplink(made: Room) -> None:
    made.machine.tool("sys-vpn", "ip", "link", "set", "eth0", "down")
    made.machine.tool("sys-vpn", "ip", "link", "set", "eth0", "up")


def injected_route(made: Room) -> None:
    """TunnelVision: a route that is better than any of ours."""
    route = f"{WEB4}/32 dev eth0".split()
    made.machine.tool("sys-vpn", "ip", "route", "replace", *route)


def lost_server(made: Room) -> None:
    made.provider.kill()
    until(lambda: made.vpn()["state"] == "lost", PATIENCE)
    made.provider.start()


def changed_rules(made: Room) -> None:
    rule = ("accept", "proto=udp", "dstports=4434")
    made.machine.does("firewall", "work", "add", *rule)
    made.machine.does("firewall", "work", "del", *rule)


def bad_profile(made: Room) -> None:
    made.give("remote \\")
    made.machine.does("up", str(made.machine.policy))
    until(lambda: made.vpn()["state"] == "error", PATIENCE)
    made.give_good()
    made.machine.does("up", str(made.machine.policy))


def restarted_domain(made: Room) -> None:
    made.machine.does("restart", "sys-vpn")


FAULTS = [
    (soft_restart, 2 * TIMES),
    (hard_restart, TIMES),
    (killed_daemon, TIMES),
    (killed_agent, TIMES),
    (removed_device, TIMES),
    (fallen_device, TIMES),
    (flapping_uplink, TIMES),
    (injected_route, TIMES),
    (lost_server, 2),
    (changed_rules, TIMES),
    (bad_profile, 2),
    (restarted_domain, 2),
]


@pytest.mark.parametrize(
    ("fault", "times"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS]
)
def test_nothing_but_the_tunnel_leaves(
    vpn: Room, fault: Callable[[Room], None], times: int
) -> None:
    """And afterwards the client flows again, with no hand."""
    with vpn.sniffer() as seen, flood(vpn) as flooded:
        for _ in range(times):
            fault(vpn)
            until(vpn.flows, PATIENCE)
            # Some of the flood, on both sides of the tunnel.
            enough = len(seen.packets) + 100
            until(lambda enough=enough: len(seen.packets) >= enough, PATIENCE)

    assert leaked(seen) == []
    assert tunnelled(seen)
    assert flooded.result.received > 0


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

# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever happens to a WireGuard tunnel, its clients' packets go nowhere else.

Classes: L2 L5 L6 L7 L10 X1 X2 X3 R2 R3 R7 R10 D2 (leaks.md, 2 and 2.7).
Two clients flood all the while.  The judge stands at the far end of the VPN's
uplink: what comes out is the tunnel's own UDP to the one server, or a leak.  Each
happening is repeated without the guard, the rules and the routing, where the same
flood is seen in clear.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.e2e.machine import stilled, until
from tests.e2e.wireguard_room import (
    OTHER_END,
    PATIENCE,
    PROVIDER,
    Room,
    impostor,
    kill,
    leaked,
    room,
    tunnelled,
)
from tests.lab.sniffer import Packet, Sniffer
from tests.leaks.rounds import Record, happen, uplink
from tests.leaks.tunnels import WEB4, bare, flood, tool

pytestmark = pytest.mark.kernel

ROUNDS = 14
LONG = 120.0  # seconds for a command on a machine that is busy

Happening = Callable[[Room], None]


@pytest.fixture(scope="module")
def _running() -> Iterator[Room]:
    with room() as made:
        made.give_good()
        made.machine.up()
        made.comes_up()
        # A client that may do everything leaves it all to the layers below.
        made.machine.does("firewall", "work", "reset")
        yield made
        made.machine.does("down")


@pytest.fixture
def vpn(_running: Room) -> Room:
    until(_running.flows, PATIENCE * 3)
    return _running


# What happens.


def the_daemon_is_killed(vpn: Room) -> None:
    kill(vpn.daemon())


def the_device_is_deleted(vpn: Room) -> None:
    with suppress(subprocess.CalledProcessError):  # it may be gone this moment
        tool(vpn, "ip link delete wg0")


def the_device_is_set_down(vpn: Room) -> None:
    with suppress(subprocess.CalledProcessError):
        tool(vpn, "ip link set wg0 down")


def the_agent_is_killed(vpn: Room) -> None:
    kill(vpn.agent())


def both_are_killed(vpn: Room) -> None:
    pids = vpn.agent(), vpn.daemon()
    for pid in pids:
        kill(pid)


def the_agent_is_told_to_stop(vpn: Room) -> None:
    with suppress(ProcessLookupError):
        os.kill(vpn.agent(), signal.SIGTERM)


def all_is_read_anew(vpn: Room) -> None:
    with suppress(ProcessLookupError):
        os.kill(vpn.agent(), signal.SIGHUP)


def the_uplink_flaps(vpn: Room) -> None:
    tool(vpn, "ip link set eth0 down")
    tool(vpn, "ip link set eth0 up")


def rules_change(vpn: Room) -> None:
    """It fails if the agent is killed again and again meanwhile."""
    vpn.machine.ravelin(
        "firewall", "personal", "add", "accept", "proto=udp", within=LONG
    )
    vpn.machine.ravelin(
        "firewall", "personal", "del", "accept", "proto=udp", within=LONG
    )


def routes_are_injected(vpn: Room) -> None:
    """TunnelVision (CVE-2024-3661): what DHCP's option 121 would put into main."""
    gateway = vpn.machine.status()["sys-net"]["ip"]
    for to in ("0.0.0.0/1", "128.0.0.0/1", f"{WEB4}/32"):
        tool(vpn, f"ip route replace {to} via {gateway} dev eth0 onlink")


def the_server_is_on_the_local_network(vpn: Room) -> None:
    """TunnelCrack, LocalNet (CVE-2023-36672): the web's prefix is on the link."""
    tool(vpn, "ip route replace 198.51.100.0/24 dev eth0")


def succeeds(vpn: Room, *words: str) -> None:
    """Give a command until it succeeds, whoever is killed meanwhile."""
    until(lambda: vpn.machine.ravelin(*words, within=LONG).status == 0, LONG)


def takes(vpn: Room) -> None:
    succeeds(vpn, "up", str(vpn.machine.policy))


def the_server_is_another(vpn: Room) -> None:
    """And then the first one again."""
    vpn.give_good(OTHER_END)
    takes(vpn)
    until(vpn.flows, PATIENCE * 3)
    vpn.give_good()
    takes(vpn)


def the_profile_is_misspelt(vpn: Room) -> None:
    """L2: a file with an error, and what it was again."""
    vpn.give("[Interface\n")
    takes(vpn)
    until(lambda: vpn.vpn()["state"] == "error", PATIENCE)
    vpn.give_good()
    takes(vpn)


def the_gateway_boots(vpn: Room) -> None:
    """A new namespace, new links, another agent and another daemon."""
    succeeds(vpn, "restart", "sys-vpn")


HAPPENINGS: tuple[Happening, ...] = (
    the_daemon_is_killed,
    the_device_is_deleted,
    the_device_is_set_down,
    the_agent_is_killed,
    both_are_killed,
    the_agent_is_told_to_stop,
    all_is_read_anew,
    the_uplink_flaps,
    rules_change,
    routes_are_injected,
    the_server_is_on_the_local_network,
    the_server_is_another,
    the_profile_is_misspelt,
    the_gateway_boots,
)


@pytest.mark.parametrize("happens", HAPPENINGS, ids=lambda h: h.__name__)
def test_nothing_leaks_when(vpn: Room, happens: Happening) -> None:
    """And the clients flow again with no hand."""
    with vpn.sniffer() as seen, flood(vpn):
        seen.wait(is_tunnel, PATIENCE)
        happens(vpn)
        until(vpn.flows, PATIENCE * 3)

    assert leaked(seen) == []
    assert tunnelled(seen)


def is_tunnel(packet: Packet) -> bool:
    return str(packet.destination) == PROVIDER and packet.port == 51820


def test_nothing_leaks_whatever_follows_whatever(vpn: Room) -> None:
    record = Record("wireguard")
    with flood(vpn):
        leaks = happen(
            vpn,
            record,
            HAPPENINGS,
            watch=lambda: uplink(vpn.sniffer(), leaked),
            flows=lambda: until(vpn.flows, PATIENCE * 4),
            fallen=vpn.machine.fallen,
            rounds=ROUNDS,
        )

    assert leaks == [], record.seed


def test_nothing_leaks_when_the_server_is_another(vpn: Room) -> None:
    """The profile is changed while clients flood; one address is carried at a time."""
    vpn.give_good(OTHER_END)
    try:
        with vpn.sniffer() as seen, flood(vpn):
            vpn.machine.up()
            seen.wait(lambda p: str(p.destination) == OTHER_END, PATIENCE)
            until(vpn.flows, PATIENCE * 3)
    finally:
        vpn.give_good()
        vpn.machine.up()

    assert leaked(seen) == []
    ends = [str(packet.destination) for packet in tunnelled(seen)]
    first = ends.index(OTHER_END)
    assert set(ends[first:]) == {OTHER_END}


CONTROLS: tuple[Happening, ...] = (
    the_device_is_deleted,
    routes_are_injected,
    the_server_is_on_the_local_network,
)


@pytest.mark.parametrize("happens", CONTROLS, ids=lambda h: h.__name__)
def test_without_protection_it_would_be_seen(vpn: Room, happens: Happening) -> None:
    """The positive control: the same flood, the same judge, no layer left."""
    with bare(vpn), vpn.sniffer() as seen, flood(vpn):
        happens(vpn)
        seen.wait(lambda p: p.marked and p.interface.startswith("vif"), PATIENCE)

    assert leaked(seen)


def test_an_impostor_of_the_device_gets_nothing(vpn: Room) -> None:
    """R7: rules and routes go by index; the name alone carries nothing."""
    sniffer = Sniffer(vpn.machine.net("sys-vpn"), "*")
    with flood(vpn), stilled(vpn.agent()), sniffer as seen:
        impostor(vpn)
        # The flood goes on for as long as a web client needs to give up.
        assert not vpn.flows()

    # What the impostor sends comes out of its other end.
    theirs = [p for p in seen.packets if p.interface == "eve"]
    assert [p for p in theirs if p.marked or str(p.destination) == WEB4] == []
    assert [p for p in seen.packets if p.marked and p.interface.startswith("vif")]


def test_an_impostor_would_get_all_by_name(vpn: Room) -> None:
    """The positive control: without protection a route by name leads to it."""
    with bare(vpn), flood(vpn), Sniffer(vpn.machine.net("sys-vpn"), "*") as seen:
        impostor(vpn)
        tool(vpn, "ip route replace default dev wg0")
        tool(vpn, "ip neighbour replace 198.51.100.80 lladdr 02:00:00:00:00:09 dev wg0")
        seen.wait(lambda p: p.marked and p.interface == "eve", PATIENCE)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever happens to a tunnel of either kind, its clients' packets go nowhere else.

Classes: L2 L4 L5 L6 L7 L10 X1 X2 X3 R2 R3 R7 R10 D2 (leaks.md, 2 and 2.7).
Two clients flood all the while.  The judge stands at the far end of the VPN's
uplink: what comes out is the tunnel's own to the one server, or a leak.  Happenings
are repeated without the guard, the rules and the routing, where the same flood is
seen in clear.
"""

import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from itertools import groupby

import pytest

from tests.e2e.machine import hang, stilled, until
from tests.e2e.openvpn_room import Room as OpenVpnRoom
from tests.e2e.vpn_room import OTHER_END, PATIENCE, PROVIDER, impostor, kill
from tests.lab.sniffer import Packet, Sniffer
from tests.leaks.rounds import Record, happen, uplink
from tests.leaks.tunnels import WEB4, Vpn, bare, flood, flows, openvpn, tool

pytestmark = pytest.mark.kernel

ROUNDS = {"wireguard": 14, "openvpn": 24}
LONG = 120.0  # seconds for a command on a machine that is busy

Happening = Callable[[Vpn], None]


# What happens.


def the_daemon_is_killed(vpn: Vpn) -> None:
    kill(vpn.room.daemon())


def the_daemon_stands_still(vpn: Vpn) -> None:
    """And is ended, which its agent does after half a minute or a whole one."""
    hang(vpn.room.daemon(), vpn.kind)


def the_device_is_deleted(vpn: Vpn) -> None:
    with suppress(subprocess.CalledProcessError):  # it may be gone this moment
        tool(vpn.room, f"ip link delete {vpn.device}")


def the_device_is_set_down(vpn: Vpn) -> None:
    with suppress(subprocess.CalledProcessError):
        tool(vpn.room, f"ip link set {vpn.device} down")


def the_agent_is_killed(vpn: Vpn) -> None:
    kill(vpn.room.agent())


def both_are_killed(vpn: Vpn) -> None:
    pids = vpn.room.agent(), vpn.room.daemon()
    for pid in pids:
        kill(pid)


def the_agent_is_told_to_stop(vpn: Vpn) -> None:
    with suppress(ProcessLookupError):
        os.kill(vpn.room.agent(), signal.SIGTERM)


def all_is_read_anew(vpn: Vpn) -> None:
    with suppress(ProcessLookupError):
        os.kill(vpn.room.agent(), signal.SIGHUP)


def the_uplink_flaps(vpn: Vpn) -> None:
    tool(vpn.room, "ip link set eth0 down")
    tool(vpn.room, "ip link set eth0 up")


def rules_change(vpn: Vpn) -> None:
    """It fails if the agent is killed again and again meanwhile."""
    vpn.machine.ravelin(
        "firewall", "personal", "add", "accept", "proto=udp", within=LONG
    )
    vpn.machine.ravelin(
        "firewall", "personal", "del", "accept", "proto=udp", within=LONG
    )


def routes_are_injected(vpn: Vpn) -> None:
    """TunnelVision (CVE-2024-3661): what DHCP's option 121 would put into main."""
    gateway = vpn.machine.status()["sys-net"]["ip"]
    for to in ("0.0.0.0/1", "128.0.0.0/1", f"{WEB4}/32"):
        tool(vpn.room, f"ip route replace {to} via {gateway} dev eth0 onlink")


def the_server_is_on_the_local_network(vpn: Vpn) -> None:
    """TunnelCrack, LocalNet (CVE-2023-36672): the web's prefix is on the link."""
    tool(vpn.room, "ip route replace 198.51.100.0/24 dev eth0")


def succeeds(vpn: Vpn, *words: str) -> None:
    """Give a command until it succeeds, whoever is killed meanwhile."""
    until(lambda: vpn.machine.ravelin(*words, within=LONG).status == 0, LONG)


def takes(vpn: Vpn) -> None:
    succeeds(vpn, "up", str(vpn.machine.policy))


def the_server_is_another(vpn: Vpn) -> None:
    """And then the first one again."""
    vpn.room.give_good(vpn.elsewhere)
    takes(vpn)
    flows(vpn)
    vpn.room.give_good()
    takes(vpn)


def the_profile_is_misspelt(vpn: Vpn) -> None:
    """L2: a file with an error, and what it was again."""
    vpn.room.give("[ \\\n")
    takes(vpn)
    until(lambda: vpn.room.vpn()["state"] == "error", PATIENCE)
    vpn.room.give_good()
    takes(vpn)


def the_gateway_boots(vpn: Vpn) -> None:
    """A new namespace, new links, another agent and another daemon."""
    succeeds(vpn, "restart", "sys-vpn")


def the_daemon_begins_anew(vpn: Vpn) -> None:
    with suppress(ProcessLookupError):
        os.kill(vpn.room.daemon(), signal.SIGUSR1)


def the_daemon_reads_its_file_anew(vpn: Vpn) -> None:
    with suppress(ProcessLookupError):
        os.kill(vpn.room.daemon(), signal.SIGHUP)


def the_server_is_lost(vpn: Vpn) -> None:
    """And comes again once that was seen."""
    assert isinstance(vpn.room, OpenVpnRoom)
    vpn.room.provider.kill()
    until(lambda: not vpn.room.is_up(), PATIENCE)
    vpn.room.provider.start()


HAPPENINGS: tuple[Happening, ...] = (
    the_daemon_is_killed,
    the_daemon_stands_still,
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
# WireGuard's daemon knows no such signal, and it sees after 20 seconds that nobody
# answers, in tests of its own.
OF_OPENVPN: tuple[Happening, ...] = (
    the_daemon_begins_anew,
    the_daemon_reads_its_file_anew,
    the_server_is_lost,
)


@pytest.mark.parametrize("happens", HAPPENINGS, ids=lambda h: h.__name__)
def test_nothing_leaks_when(vpn: Vpn, happens: Happening) -> None:
    """And the clients flow again with no hand."""
    keeps_in(vpn, happens)


@pytest.mark.parametrize("tunnel", [openvpn], indirect=True, ids=["openvpn"])
@pytest.mark.parametrize("happens", OF_OPENVPN, ids=lambda h: h.__name__)
def test_nothing_leaks_when_only_openvpn_knows_it(vpn: Vpn, happens: Happening) -> None:
    keeps_in(vpn, happens)


def keeps_in(vpn: Vpn, happens: Happening) -> None:
    """And one address is carried at a time."""
    with vpn.room.sniffer() as seen, flood(vpn.room):
        seen.wait(lambda packet: is_of(vpn, packet), PATIENCE)
        happens(vpn)
        flows(vpn)

    assert vpn.leaked(seen) == []
    ends = [end for end, _ in groupby(str(p.destination) for p in vpn.tunnelled(seen))]
    another = [OTHER_END, PROVIDER] if happens is the_server_is_another else []
    assert ends == [PROVIDER, *another]


def is_of(vpn: Vpn, packet: Packet) -> bool:
    """Whether a packet is the tunnel, at the first server."""
    return (str(packet.destination), packet.port) == (PROVIDER, vpn.port)


def test_nothing_leaks_whatever_follows_whatever(vpn: Vpn) -> None:
    record = Record(vpn.kind)
    with flood(vpn.room):
        leaks = happen(
            vpn,
            record,
            HAPPENINGS if vpn.kind == "wireguard" else (*HAPPENINGS, *OF_OPENVPN),
            watch=lambda: uplink(vpn.room.sniffer(), vpn.leaked),
            flows=lambda: flows(vpn),
            fallen=vpn.machine.fallen,
            rounds=ROUNDS[vpn.kind],
        )

    assert leaks == [], record.seed


CONTROLS: tuple[Happening, ...] = (
    the_device_is_deleted,
    routes_are_injected,
    the_server_is_on_the_local_network,
)


@pytest.mark.parametrize("happens", CONTROLS, ids=lambda h: h.__name__)
def test_without_protection_it_would_be_seen(vpn: Vpn, happens: Happening) -> None:
    """The positive control: the same flood, the same judge, no layer left."""
    with flood(vpn.room), bare(vpn.room), vpn.room.sniffer() as seen:
        happens(vpn)
        seen.wait(lambda p: p.marked and p.interface.startswith("vif"), PATIENCE)

    assert vpn.leaked(seen)


def test_an_impostor_of_the_device_gets_nothing(vpn: Vpn) -> None:
    """R7: rules and routes go by index; the name alone carries nothing."""
    with flood(vpn.room), Sniffer(vpn.machine.net("sys-vpn"), "*") as seen:
        seen.wait(lambda p: p.marked and p.interface.startswith("vif"), PATIENCE)
        with stilled(vpn.room.agent()):
            impostor(vpn.room, vpn.device, vpn.own)
            # The flood goes on for as long as a web client needs to give up.
            assert vpn.machine.taken_for("work") == ""

    # What the impostor sends comes out of its other end.
    theirs = [p for p in seen.packets if p.interface == "eve"]
    assert [p for p in theirs if p.marked or str(p.destination) == WEB4] == []


def test_an_impostor_would_get_all_by_name(vpn: Vpn) -> None:
    """The positive control: without protection a route by name leads to it."""
    listen = Sniffer(vpn.machine.net("sys-vpn"), "*")
    with flood(vpn.room), bare(vpn.room), listen as seen:
        impostor(vpn.room, vpn.device, vpn.own)
        tool(vpn.room, f"ip route replace default dev {vpn.device}")
        neighbour = f"{WEB4} lladdr 02:00:00:00:00:09 dev {vpn.device}"
        tool(vpn.room, f"ip neighbour replace {neighbour}")
        seen.wait(lambda p: p.marked and p.interface == "eve", PATIENCE)

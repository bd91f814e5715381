# SPDX-License-Identifier: GPL-2.0-or-later
"""A wall clock that is wrong, or jumps, is named and opens nothing.

The daemons of tor and OpenVPN have a clock of their own here; the machine's is left
alone.  wireguard-go asks the kernel past the C library, so nothing can be told it:
that its health knows no wall clock is in `tests.vpn.test_wireguard_health`.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest

from controller.lab.tor_network import TorNetwork
from tests.e2e.machine import WEB4, Machine, machine, until
from tests.e2e.openvpn_room import (
    OUTSIDE,
    PATIENCE,
    PORT,
    PROVIDER,
    Room,
    leaked,
    room,
    tunnelled,
)
from tests.lab.prober import Flood
from tests.lab.sniffer import EVERY, TCP, Packet, Sniffer
from tests.lab.wrong_clock import wrong_clock
from tests.tor.chain import RELAYS
from tests.vpn.openvpn_server import OPENVPN

pytestmark = pytest.mark.kernel

TOR = "/usr/bin/tor"
CIRCUITS = 90.0  # seconds; only a failing test waits that long
WITH_TOR = f"""{OUTSIDE}
[domains.sys-tor]
personality = "tor"
netvm = "sys-net"
network = "tor.network"

[domains.anon]
netvm = "sys-tor"
"""
FLOODED, RATE = 9009, 200
HOUR = 3600  # seconds
# To read another library is more than its sandbox allows.
OPEN = "--Sandbox 0"


@contextmanager
def tor_room() -> Iterator[Machine]:
    """Give a machine with a NetVM alone, before a private Tor network."""
    with machine(OUTSIDE) as made:
        made.up()
        tors = TorNetwork(made.internet.hosts)
        network = tors.up()
        file = made.policy.parent / "tor.network"
        file.touch(mode=0o600)
        file.write_text(network.options)
        made.policy.write_text(WITH_TOR)
        try:
            yield made
        finally:
            made.ravelin("down")
            tors.down()


def told(made: Machine) -> dict[str, object]:
    return made.status()["sys-tor"]


def fetches(made: Machine) -> bool:
    return made.curl_plain("anon", f"http://{WEB4}/").out != ""


def not_tor(seen: Sniffer) -> list[Packet]:
    """Return what left a TorVM and is neither tor's TCP nor keeps the link."""
    return [
        packet
        for packet in seen.packets
        if not packet.outgoing
        and packet.interface.startswith("vif")
        and not packet.neighbourly
        and not (packet.protocol == TCP and (packet.destination, packet.port) in RELAYS)
    ]


@contextmanager
def tried(made: Machine, client: str) -> Iterator[Sniffer]:
    """Have a client send what it can, and see all that leaves its gateway."""
    target = ip_address(WEB4)
    flood = Flood(made.net(client), made.internet.net, target, FLOODED, rate=RATE)
    with Sniffer(made.net("sys-net"), EVERY) as seen, flood:
        yield seen


@pytest.fixture(scope="module")
def tor() -> Iterator[Machine]:
    with tor_room() as made:
        yield made


@pytest.mark.parametrize(
    ("by", "words"),
    [(-74 * HOUR, "the clock is 3 days behind"), (5 * HOUR, "the clock is 5 h ahead")],
)
def test_tor_with_a_wrong_clock_is_named(tor: Machine, by: int, words: str) -> None:
    """T11: behind, tor cannot begin; ahead, it bears with some hours.

    With the right one it is served, and nothing is said any more.
    """
    with wrong_clock(TOR, OPEN) as clock:
        clock.is_wrong_by(by)
        tor.up()
        tor.does("restart", "sys-tor")
        with tried(tor, "anon") as seen:
            until(lambda: told(tor)["problem"] == words, CIRCUITS)
            assert by > 0 or not fetches(tor)

            clock.is_wrong_by(0)
            tor.does("restart", "sys-tor")
            until(lambda: fetches(tor), CIRCUITS)
            until(lambda: told(tor)["problem"] is None, CIRCUITS)
    assert not_tor(seen) == []


@pytest.mark.parametrize("by", [2 * HOUR, -2 * HOUR])
def test_a_clock_that_jumps_under_tor_opens_nothing(tor: Machine, by: int) -> None:
    """Whatever tor makes of it; with the right one it serves, and all is well."""
    with wrong_clock(TOR, OPEN) as clock:
        tor.up()
        tor.does("restart", "sys-tor")
        with tried(tor, "anon") as seen:
            until(lambda: fetches(tor), CIRCUITS)
            for jump in (by, 0):
                clock.is_wrong_by(jump)
                until(lambda jump=jump: abs(wrong(tor) - jump) < HOUR / 2, CIRCUITS)
            until(lambda: fetches(tor), CIRCUITS)
            until(lambda: told(tor)["problem"] is None, CIRCUITS)
    assert not_tor(seen) == []


def wrong(made: Machine) -> float:
    """Return by how many seconds tor takes its clock to be ahead (control-spec)."""
    (path,) = (made.runtime / "daemon/sys-tor/tor").glob("*.control")
    cookie = Path(f"{path}.cookie").read_bytes().hex()
    with socket.socket(socket.AF_UNIX) as talk:
        talk.settimeout(PATIENCE)
        talk.connect(str(path))
        words = f"AUTHENTICATE {cookie}\r\nGETINFO current-time/utc\r\nQUIT\r\n"
        talk.sendall(words.encode())
        text = talk.makefile().read().partition("current-time/utc=")[2][:19]
    return (datetime.fromisoformat(f"{text}+00:00") - datetime.now(UTC)).total_seconds()


@pytest.fixture(scope="module")
def vpn() -> Iterator[Room]:
    """A room whose server is certified for a month, from yesterday on."""
    with room() as made:
        now = datetime.now(UTC)
        ends = (now - timedelta(days=1), now + timedelta(days=30))
        start, end = (f"{each:%Y%m%d%H%M%S}Z" for each in ends)
        made.pki.issue("monthly", "server", (start, end))
        made.provider.kill()
        made.provider.cert = "monthly"
        made.provider.start()
        made.give_good()
        yield made


@pytest.mark.parametrize(
    ("by", "words"),
    [
        (-60 * 24 * HOUR, "is not yet valid: is the clock right?"),
        (60 * 24 * HOUR, "has expired"),
    ],
)
def test_openvpn_with_a_wrong_clock_is_named_and_closed(
    vpn: Room, by: int, words: str
) -> None:
    """And with the right one it connects, with no hand."""
    with wrong_clock(OPENVPN) as clock:
        clock.is_wrong_by(by)
        vpn.machine.up()
        vpn.machine.does("restart", "sys-vpn")
        words = f"the server's certificate {words} ({PROVIDER} port {PORT}/udp)"
        with tried(vpn.machine, "work") as seen:
            until(lambda: vpn.vpn()["problem"] == words, PATIENCE)
            assert not vpn.flows()

            clock.is_wrong_by(0)
            until(vpn.flows, PATIENCE * 2)
    assert leaked(seen) == []


@pytest.mark.parametrize("by", [2 * HOUR, -2 * HOUR])
def test_a_clock_that_jumps_under_openvpn_opens_nothing(vpn: Room, by: int) -> None:
    with wrong_clock(OPENVPN) as clock:
        vpn.machine.up()
        vpn.machine.does("restart", "sys-vpn")
        until(vpn.flows, PATIENCE)
        with tried(vpn.machine, "work") as seen:
            for jump in (by, 0):
                before = len(tunnelled(seen))
                clock.is_wrong_by(jump)
                # Some of the flood goes on, or another tunnel carries it.
                until(
                    lambda before=before: len(tunnelled(seen)) > before + 50, PATIENCE
                )
                until(vpn.flows, PATIENCE)
    assert leaked(seen) == []

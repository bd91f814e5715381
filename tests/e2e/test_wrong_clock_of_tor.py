# SPDX-License-Identifier: GPL-2.0-or-later
"""A wall clock of tor that is wrong, or jumps, is named and opens nothing.

The daemon has a clock of its own here; the machine's is left alone.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from math import inf
from pathlib import Path

import pytest

from controller.lab.tor_network import TorNetwork
from tests.e2e.machine import WEB4, Machine, becomes, machine, until
from tests.e2e.tried import tried
from tests.e2e.vpn_room import OUTSIDE, PATIENCE
from tests.lab.sniffer import TCP, Packet, Sniffer
from tests.lab.wrong_clock import wrong_clock
from tests.tor.chain import RELAYS

pytestmark = pytest.mark.kernel

TOR = "/usr/bin/tor"
CIRCUITS = 180.0  # seconds; only a failing test waits that long
WITH_TOR = f"""{OUTSIDE}
[domains.sys-tor]
personality = "tor"
netvm = "sys-net"
network = "tor.network"

[domains.anon]
netvm = "sys-tor"
"""
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
            becomes(lambda: told(tor)["problem"], words, CIRCUITS)
            assert by > 0 or not fetches(tor)

            clock.is_wrong_by(0)
            tor.does("restart", "sys-tor")
            until(lambda: fetches(tor), CIRCUITS)
            becomes(lambda: told(tor)["problem"], None, CIRCUITS)
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
            becomes(lambda: told(tor)["problem"], None, CIRCUITS)
    assert not_tor(seen) == []


def wrong(made: Machine) -> float:
    """Return by how many seconds tor takes its clock to be ahead (control-spec).

    It is infinite while no tor answers, which may be started anew by now.
    """
    with suppress(OSError, ValueError), socket.socket(socket.AF_UNIX) as talk:
        (path,) = (made.runtime / "daemon/sys-tor/tor").glob("*.control")
        cookie = Path(f"{path}.cookie").read_bytes().hex()
        talk.settimeout(PATIENCE)
        talk.connect(str(path))
        words = f"AUTHENTICATE {cookie}\r\nGETINFO current-time/utc\r\nQUIT\r\n"
        talk.sendall(words.encode())
        text = talk.makefile().read().partition("current-time/utc=")[2][:19]
        said = datetime.fromisoformat(f"{text}+00:00")
        return (said - datetime.now(UTC)).total_seconds()
    return inf

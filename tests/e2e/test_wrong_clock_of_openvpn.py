# SPDX-License-Identifier: GPL-2.0-or-later
"""A wall clock of OpenVPN that is wrong, or jumps, is named and opens nothing.

The daemon has a clock of its own here; the machine's is left alone.  wireguard-go
asks the kernel past the C library, so nothing can be told it: that its health knows
no wall clock is in `tests.vpn.test_wireguard_health`.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.e2e.machine import until
from tests.e2e.openvpn_room import PORT, Room, leaked, room, tunnelled
from tests.e2e.tried import tried
from tests.e2e.vpn_room import PATIENCE, PROVIDER
from tests.lab.wrong_clock import wrong_clock
from tests.vpn.openvpn_server import OPENVPN

pytestmark = pytest.mark.kernel

HOUR = 3600  # seconds


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
            vpn.says(words)
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

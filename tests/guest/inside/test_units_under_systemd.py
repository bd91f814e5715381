# SPDX-License-Identifier: GPL-2.0-or-later
"""The units of agents: confined, ready with their guard, watched, and reloaded."""

import os
import signal

import pytest

from tests.guest.inside.unit_room import shown, started, status_of, tool, until

pytestmark = pytest.mark.usefixtures("gateway")

AGENTS = ("ravelin-netvm", "ravelin-firewallvm", "ravelin-torvm")


@pytest.mark.parametrize("unit", AGENTS)
def test_an_agent_is_ready_with_its_guard_and_as_nobody(unit: str) -> None:
    """It has given up all but CAP_NET_ADMIN (12); stopped, it leaves its guard."""
    with started(unit) as there:
        assert shown(unit, "ActiveState") == "active"
        there.hears("/ravelin/status", "generation=")
        assert "ravelin-guard" in tool("nft list tables")
        status = status_of(shown(unit, "MainPID"))
        assert status["Uid"].split()[0] != "0"
        assert int(status["CapEff"], 16) == 1 << 12
        assert status["NoNewPrivs"] == "1"

    assert "ravelin-guard" in tool("nft list tables")


def test_an_agent_is_reloaded_in_place_and_started_again_when_it_is_not_there() -> None:
    """A reload reads all anew in the same process; who is killed or silent is another.

    SIGSTOP is silence: the watchdog's ten seconds are systemd's to keep.
    """
    unit = "ravelin-netvm"
    with started(unit) as there:
        there.hears("/ravelin/status", "generation=")
        before = shown(unit, "MainPID")
        there.said.clear()
        tool(f"systemctl reload {unit}")
        there.hears("/ravelin/status", "generation=")
        assert shown(unit, "MainPID") == before

        for number in (signal.SIGKILL, signal.SIGSTOP):
            before = shown(unit, "MainPID")
            os.kill(int(before), number)
            until(lambda old=before: shown(unit, "MainPID") not in ("0", old))
            until(lambda: shown(unit, "ActiveState") == "active")

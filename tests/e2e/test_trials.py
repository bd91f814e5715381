# SPDX-License-Identifier: GPL-2.0-or-later
"""A change on trial goes again unless somebody says that it stays."""

import pytest

from tests.e2e.machine import HOME, HTTP, HTTPS, WEB4, Machine, becomes, until

pytestmark = pytest.mark.kernel

LONG = 60.0  # seconds, on a machine that is busy
DNS = '  "accept specialtarget'
RULE = '  "accept dst4=198.51.100.0/24 proto=tcp dstports=80",\n'
CHANGED = HOME.replace(DNS, RULE + DNS, 1)


def test_what_nobody_confirms_is_rolled_back_although_the_command_was_killed(
    fresh: Machine,
) -> None:
    fresh.up()
    fresh.policy.write_text(CHANGED)
    asking = fresh.start("apply", "--confirm", "5")
    until(lambda: fresh.reaches("work", WEB4, HTTP), LONG)
    asking.kill()
    asking.communicate()

    until(lambda: fresh.policy.read_text() == HOME, LONG)
    until(lambda: not fresh.reaches("work", WEB4, HTTP), LONG)
    assert "not confirmed in time: rolled back" in fresh.does("log")
    assert fresh.does("apply") == ""


def test_what_is_confirmed_stays(fresh: Machine) -> None:
    fresh.up()
    fresh.policy.write_text(CHANGED)
    said = fresh.does("apply", "--confirm", "60")
    assert "work may now also reach 198.51.100.0/24 tcp/80" in said
    assert "rolled back in 60 s" in said
    refused = fresh.ravelin("firewall", "work", "add", "drop")
    assert (refused.status, "ravelin confirm" in refused.err) == (1, True)
    fresh.does("confirm")

    assert fresh.policy.read_text() == CHANGED
    assert fresh.reaches("work", WEB4, HTTP)
    assert fresh.ravelin("confirm").status == 1


def test_what_was_on_trial_in_a_crash_is_gone_from_the_file(fresh: Machine) -> None:
    fresh.up()
    fresh.policy.write_text(CHANGED)
    fresh.does("apply", "--confirm", "3600")
    fresh.crash()
    fresh.up()

    assert fresh.policy.read_text() == HOME
    assert fresh.reaches("work", WEB4, HTTPS)
    fresh.does("down")


def test_a_first_policy_that_breaks_an_assertion_starts_nothing(fresh: Machine) -> None:
    before = fresh.host()
    lines = ("[[assert]]", 'from = "untrusted"', 'expect = "blocked"', "")
    fresh.policy.write_text(HOME + "\n".join(lines))
    done = fresh.ravelin("up", str(fresh.policy))

    assert done.status == 1
    assert "untrusted to anywhere: blocked, but untrusted reaches" in done.err
    becomes(fresh.left, [], LONG)
    assert fresh.host() == before
    assert fresh.ravelin("status").status == 3

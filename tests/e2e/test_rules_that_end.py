# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules with ``expire``: they end at their time, and so do their live flows."""

import time

import pytest

from tests.e2e.machine import FORBIDDEN4, HTTPS, PATIENCE, WEB4, Machine, end, until

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("crash", [False, True], ids=["runs on", "crashes"])
def test_a_rule_ends_at_its_time_and_its_live_flow_is_cut(
    fresh: Machine, *, crash: bool
) -> None:
    begun = time.time()
    fresh.up()
    # Long enough to come up again and open a stream, however busy the machine is by
    # then: if it needs no more than that, the test waits for the rest.
    lasts = 5 + int((3 if crash else 1) * (time.time() - begun))
    rule = ("accept", f"dst4={FORBIDDEN4}", "proto=tcp", f"expire=+{lasts}")
    begun = time.time()
    fresh.does("firewall", "work", "add", *rule)
    assert fresh.reaches("work", FORBIDDEN4)
    if crash:
        end(fresh.daemon())
        fresh.up()
    stream = fresh.stream("work", FORBIDDEN4)
    assert stream.lives()
    until(lambda: fresh.is_cut(stream, "sys-firewall"), lasts + PATIENCE)
    assert time.time() >= begun + lasts - 1  # a time of rules is a whole second
    assert not fresh.reaches("work", FORBIDDEN4)
    assert fresh.reaches("work", WEB4, HTTPS)
    assert "expired" in fresh.does("firewall", "work", "list")


def test_a_rule_that_has_ended_stays_so_after_a_restart(fresh: Machine) -> None:
    text = fresh.policy.read_text().replace(
        '"accept specialtarget=dns",',
        f'"accept dst4={FORBIDDEN4} expire=1000000000",\n  "accept specialtarget=dns",',
        1,
    )
    fresh.policy.write_text(text)
    fresh.up()
    assert not fresh.reaches("work", FORBIDDEN4)
    assert fresh.reaches("work", WEB4, HTTPS)

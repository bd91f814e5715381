# SPDX-License-Identifier: GPL-2.0-or-later
"""Attempts come to all servers in turn, and ever more slowly."""

import math
from itertools import pairwise

from vpn.endpoints import MOST_PAUSE, Endpoint, Rotation
from vpn.openvpn_attempts import Attempts

ONE = Rotation((Endpoint("a.example", 1),))
TWO = Rotation((Endpoint("a.example", 1), Endpoint("b.example", 2)))


def test_a_failure_leads_to_the_next_server_and_in_the_end_to_a_pause() -> None:
    first = Attempts(TWO).failed(100)
    second = first.failed(100)

    assert (first.rotation.endpoint.port, first.due) == (2, 100)
    assert (second.rotation.endpoint.port, second.due) == (1, 101)


def test_pauses_grow_and_end_growing() -> None:
    attempts, pauses = Attempts(ONE), []
    for _ in range(20):
        attempts = attempts.failed(0)
        pauses.append(attempts.due)

    assert all(a <= b for a, b in pairwise(pauses))
    assert pauses[0] > 0
    assert pauses[-1] == pauses[-5] == MOST_PAUSE


def test_a_login_that_is_not_taken_is_not_said_often() -> None:
    attempts, pauses = Attempts(ONE), []
    for _ in range(20):
        attempts = attempts.refused(0)
        pauses.append(attempts.due)

    assert pauses[:3] == [60, 120, 240]
    assert pauses[-1] == 900
    assert attempts.succeeded(0).refused(0).due == 60


def test_what_was_up_for_long_is_tried_again_at_once() -> None:
    attempts = Attempts(TWO).failed(0).succeeded(10).lost(40)

    assert (attempts.due, attempts.rotation.endpoint.port) == (40, 2)
    assert attempts.rotation.failures == 0
    assert attempts.up_since == math.inf


def test_what_goes_at_once_each_time_is_not_tried_in_a_hurry() -> None:
    attempts, now, pauses = Attempts(ONE), 0.0, []
    for _ in range(10):
        attempts = attempts.succeeded(now).lost(now + 1)
        pauses.append(attempts.due - now - 1)
        now = attempts.due

    assert pauses == [1, 2, *[4] * 8]

# SPDX-License-Identifier: GPL-2.0-or-later
"""A silent protocol is judged by its counters, and by no clock that can be set."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpn.wireguard_device import PeerState
from vpn.wireguard_health import KEEPALIVE, QUIET, SILENCE, Health, Verdict
from vpn.wireguard_profile import Key

PUBLIC = Key(b"\2" * 32)
BEGUN = Health(begun=100.0, keepalive=25, patience=5.0, probed=True)
FRESH = PeerState(PUBLIC, None, 7, received=92, sent=180)
UP = BEGUN.seen(FRESH, 101.0).answered(101.5)


def test_before_a_handshake_there_is_patience_and_then_none() -> None:
    nothing = BEGUN.seen(PeerState(PUBLIC, None, 0, 0, 148), 101.0)

    assert nothing.verdict(104.9) is Verdict.WAITING
    assert nothing.verdict(105.0) is Verdict.UNANSWERED


def test_a_handshake_proves_a_tunnel_only_where_nobody_can_be_asked() -> None:
    assert BEGUN.seen(FRESH, 101.0).verdict(101.0) is Verdict.WAITING
    alone = replace(BEGUN, probed=False).seen(FRESH, 101.0)
    assert alone.verdict(101.0) is Verdict.PROVEN


def test_a_handshake_without_an_answer_is_an_empty_tunnel() -> None:
    shaken = BEGUN.seen(FRESH, 104.0)

    assert shaken.verdict(108.9) is Verdict.WAITING
    assert shaken.verdict(109.0) is Verdict.EMPTY


def test_more_than_the_handshake_received_is_data() -> None:
    later = BEGUN.seen(FRESH, 101.0).seen(replace(FRESH, received=124), 102.0)

    assert later.verdict(102.0) is Verdict.PROVEN


def test_data_sent_and_nothing_heard_is_silence() -> None:
    """A live peer sends a keepalive within 10 s of data."""
    sent = UP.seen(replace(FRESH, sent=5000), 200.0)

    assert sent.verdict(200.0 + SILENCE - 0.1) is Verdict.PROVEN
    assert sent.verdict(200.0 + SILENCE) is Verdict.SILENT
    heard = sent.seen(replace(FRESH, sent=5000, received=124), 210.0)
    assert heard.verdict(200.0 + SILENCE) is Verdict.PROVEN


def test_keepalives_of_our_own_need_no_answer() -> None:
    health, sent = UP, FRESH.sent
    for moment in (125.0, 150.0, 175.0, 200.0):
        sent += KEEPALIVE
        health = health.seen(replace(FRESH, sent=sent), moment)

    assert health.verdict(201.0) is Verdict.PROVEN


@pytest.mark.parametrize(
    ("keepalive", "most"), [(1, 136.0), (15, 150.0), (25, 160.0), (60, 195.0)]
)
def test_no_new_handshake_in_its_time_is_silence(keepalive: int, most: float) -> None:
    """135 s, and more where keepalives are rarer: one of them makes the handshake."""
    health = replace(UP, keepalive=keepalive)

    assert health.verdict(101.5 + most - 1.5) is Verdict.PROVEN
    assert health.verdict(101.5 + most + 1) is Verdict.SILENT
    renewed = health.seen(replace(FRESH, handshake=8), 200.0)
    assert renewed.verdict(101.5 + most + 1) is Verdict.PROVEN


@given(st.integers(1, 2**62))
def test_a_wall_clock_that_jumps_changes_nothing(handshake: int) -> None:
    """Only that the handshake is another one counts, not when it says it was."""
    jumped = UP.seen(replace(FRESH, handshake=handshake), 102.0)

    assert jumped.verdict(103.0) is Verdict.PROVEN
    assert jumped.verdict(200.0) is Verdict.PROVEN
    assert jumped.verdict(300.0) is Verdict.SILENT


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 9999), st.integers(0, 9999)),
        max_size=30,
    )
)
def test_a_tunnel_is_never_proven_before_its_handshake(
    looks: list[tuple[int, int, int]],
) -> None:
    health = BEGUN
    shaken = False
    for second, (handshake, received, sent) in enumerate(looks):
        state = PeerState(PUBLIC, None, handshake, received, sent)
        health = health.seen(state, 100.0 + second)
        shaken |= bool(handshake)
        assert shaken or not health.proven


def test_an_idle_tunnel_is_asked_now_and_then() -> None:
    """X2: nobody sends, so nothing would show that the server is gone."""
    assert not UP.is_quiet(101.5 + QUIET - 0.1)
    assert UP.is_quiet(101.5 + QUIET)
    heard = UP.seen(replace(FRESH, received=220), 130.0)
    assert not heard.is_quiet(131.5)
    assert not replace(UP, probed=False).is_quiet(1000.0)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Each state and event of a TorVM, and what each state allows."""

from dataclasses import replace
from ipaddress import ip_address
from itertools import product

import pytest

from rules.facts import Facts, Uplink
from rules.flows import CARRIED, CONTROL_PORT, INTO_DAEMON, PING, Flow, Zone
from torvm.states import HELD, TORVM, Progress, Seen, Tor, observe

DOWN, CONNECTING, UP, LOST, ERROR = Tor
STEPS = {
    (DOWN, Seen.TRYING): CONNECTING,
    (CONNECTING, Seen.TRYING): CONNECTING,
    (UP, Seen.TRYING): LOST,
    (LOST, Seen.TRYING): LOST,
    (ERROR, Seen.TRYING): CONNECTING,
    **{(state, Seen.READY): UP for state in Tor},
    **{(state, Seen.UPLINK_LOST): DOWN for state in Tor},
    **{(state, Seen.HOPELESS): ERROR for state in Tor},
}
ALLOWED = {
    DOWN: {PING, CONTROL_PORT},
    CONNECTING: {PING, CONTROL_PORT, CARRIED},
    UP: {PING, CONTROL_PORT, CARRIED, INTO_DAEMON},
    LOST: {PING, CONTROL_PORT, CARRIED},
    ERROR: {PING},
}
UPLINK = Uplink("eth0", 2, frozenset({ip_address("10.137.0.5")}), frozenset(), ())
GATEWAY = replace(UPLINK, gateways=(ip_address("10.137.0.1"),))


@pytest.mark.parametrize(("state", "event"), list(product(Tor, Seen)))
def test_every_event_leads_from_every_state_to_a_named_one(
    state: Tor, event: Seen
) -> None:
    assert TORVM.step(state, event) is STEPS[state, event]


@pytest.mark.parametrize("state", list(Tor))
def test_a_state_allows_what_is_written_here_and_no_more(state: Tor) -> None:
    assert TORVM.allowed[state] == ALLOWED[state]


def test_no_state_lets_a_client_past_tor() -> None:
    """The only flow of clients ends in this domain."""
    flows: set[Flow] = set().union(*TORVM.allowed.values())

    assert {f.target for f in flows if f.source is Zone.CLIENTS} == {Zone.SELF}


def test_tor_is_held_where_nothing_carries_it() -> None:
    assert {"down", "error"} == HELD


@pytest.mark.parametrize(
    ("uplinks", "progress", "seen"),
    [
        ((), Progress.READY, Seen.UPLINK_LOST),
        ((UPLINK,), Progress.READY, Seen.UPLINK_LOST),
        ((GATEWAY,), Progress.READY, Seen.READY),
        ((GATEWAY,), Progress.TRYING, Seen.TRYING),
        ((), Progress.HOPELESS, Seen.HOPELESS),
        ((GATEWAY,), Progress.HOPELESS, Seen.HOPELESS),
    ],
)
def test_the_uplink_and_tor_say_together_what_is_so(
    uplinks: tuple[Uplink, ...], progress: Progress, seen: Seen
) -> None:
    assert observe(Facts(uplinks=uplinks), progress) is seen

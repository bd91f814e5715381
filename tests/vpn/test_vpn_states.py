# SPDX-License-Identifier: GPL-2.0-or-later
"""Each state and event of a VPN, and what each state allows."""

from ipaddress import ip_address
from itertools import product

import pytest

from rules.facts import Facts, Uplink
from rules.flows import (
    CARRIED,
    DNS_IN_TUNNEL,
    IN_TUNNEL,
    NAMES_IN_TUNNEL,
    PING,
    Zone,
)
from vpn.states import VPN, Progress, Seen, Tunnel, observe

DOWN, CONNECTING, UP = Tunnel.DOWN, Tunnel.CONNECTING, Tunnel.UP
LOST, ERROR = Tunnel.LOST, Tunnel.ERROR
STEPS = {
    (DOWN, Seen.TRYING): CONNECTING,
    (DOWN, Seen.PROVEN): DOWN,
    (CONNECTING, Seen.TRYING): CONNECTING,
    (CONNECTING, Seen.PROVEN): UP,
    (UP, Seen.TRYING): LOST,
    (UP, Seen.PROVEN): UP,
    (LOST, Seen.TRYING): LOST,
    (LOST, Seen.PROVEN): UP,
    (ERROR, Seen.TRYING): CONNECTING,
    (ERROR, Seen.PROVEN): ERROR,
    **{(state, Seen.UPLINK_LOST): DOWN for state in Tunnel},
    **{(state, Seen.HOPELESS): ERROR for state in Tunnel},
}
READY = Uplink("eth0", 2, frozenset({ip_address("10.137.0.5")}), gateways=())
OUT = Facts(
    uplinks=(
        Uplink(
            "eth0",
            2,
            frozenset({ip_address("10.137.0.5")}),
            gateways=(ip_address("10.138.0.1"),),
        ),
    )
)


@pytest.mark.parametrize(("state", "event"), list(product(Tunnel, Seen)))
def test_every_event_leads_from_every_state_to_a_named_one(
    state: Tunnel, event: Seen
) -> None:
    assert VPN.step(state, event) is STEPS[state, event]


ALLOWED = {
    DOWN: {PING},
    CONNECTING: {PING, CARRIED, NAMES_IN_TUNNEL},
    UP: {PING, CARRIED, NAMES_IN_TUNNEL, IN_TUNNEL, DNS_IN_TUNNEL},
    LOST: {PING, CARRIED, NAMES_IN_TUNNEL},
    ERROR: {PING},
}


@pytest.mark.parametrize("state", Tunnel)
def test_a_state_allows_what_its_row_says(state: Tunnel) -> None:
    assert VPN.allowed[state] == ALLOWED[state]


def test_clients_are_carried_in_one_state_only_and_by_the_tunnel_alone() -> None:
    """Neither connecting nor a lost tunnel lets a client's packet out."""
    flows = {flow for state in Tunnel for flow in VPN.allowed[state]}

    assert {s for s in Tunnel if VPN.allowed[s] & {IN_TUNNEL, DNS_IN_TUNNEL}} == {UP}
    assert {flow for flow in flows if flow.target is Zone.UPLINK} == {CARRIED}


def test_it_begins_down_and_every_state_answers_pings() -> None:
    assert VPN.initial is DOWN
    assert all(PING in VPN.allowed[state] for state in Tunnel)


@pytest.mark.parametrize(
    ("facts", "progress", "seen"),
    [
        (Facts(), Progress.TRYING, Seen.UPLINK_LOST),
        (Facts(), Progress.PROVEN, Seen.UPLINK_LOST),
        (Facts(uplinks=(READY,)), Progress.TRYING, Seen.UPLINK_LOST),
        (OUT, Progress.TRYING, Seen.TRYING),
        (OUT, Progress.PROVEN, Seen.PROVEN),
        (OUT, Progress.HOPELESS, Seen.HOPELESS),
        (Facts(), Progress.HOPELESS, Seen.HOPELESS),
    ],
)
def test_the_uplink_counts_before_the_tunnel_and_the_configuration_before_both(
    facts: Facts, progress: Progress, seen: Seen
) -> None:
    """A tunnel cannot be proven without a way to the server."""
    assert observe(facts, progress) is seen

# SPDX-License-Identifier: GPL-2.0-or-later
"""Each state and event of the plain gateways, and what each state allows."""

from ipaddress import ip_address
from itertools import product

import pytest

from agent.machine import PlainGateway, Uplinks, Way, observe
from firewallvm.states import FIREWALLVM
from netvm.states import NETVM
from rules.facts import Facts, Uplink
from rules.flows import BY_RULES, CLIENT_DNS, OWN_NAMES, OWN_TRAFFIC, PING, Flow

BLOCKED, OPEN = Way.BLOCKED, Way.OPEN
READY, LOST = Uplinks.READY, Uplinks.LOST
STEPS = {
    (BLOCKED, READY): OPEN,
    (BLOCKED, LOST): BLOCKED,
    (OPEN, READY): OPEN,
    (OPEN, LOST): BLOCKED,
}
ALLOWED = {
    ("netvm", BLOCKED): {PING},
    ("netvm", OPEN): {PING, BY_RULES, CLIENT_DNS, OWN_TRAFFIC},
    ("firewallvm", BLOCKED): {PING},
    ("firewallvm", OPEN): {PING, BY_RULES, CLIENT_DNS, OWN_NAMES},
}
MACHINES = {machine.name: machine for machine in (NETVM, FIREWALLVM)}
OWN, NEXT = ip_address("192.168.1.7"), ip_address("192.168.1.1")


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize(("state", "event"), list(product(Way, Uplinks)))
def test_every_event_leads_from_every_state_to_a_named_one(
    name: str, state: Way, event: Uplinks
) -> None:
    assert MACHINES[name].step(state, event) is STEPS[state, event]


@pytest.mark.parametrize(
    ("name", "state"), ALLOWED, ids=lambda part: getattr(part, "value", part)
)
def test_a_state_allows_what_its_row_says(name: str, state: Way) -> None:
    assert MACHINES[name].allowed[state] == ALLOWED[name, state]


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_a_machine_begins_closed_and_knows_all_its_states(
    machine: PlainGateway,
) -> None:
    assert machine.initial is BLOCKED
    assert machine.allowed.keys() == set(Way)


@pytest.mark.parametrize("flow", [BY_RULES, CLIENT_DNS, OWN_TRAFFIC, OWN_NAMES])
@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_nothing_leaves_while_there_is_no_way_out(
    machine: PlainGateway, flow: Flow
) -> None:
    assert flow not in machine.allowed[BLOCKED]


@pytest.mark.parametrize(
    ("uplinks", "event"),
    [
        ((), LOST),
        ((Uplink("eth0", 2),), LOST),
        ((Uplink("eth0", 2, own=frozenset({OWN})),), LOST),
        ((Uplink("eth0", 2, gateways=(NEXT,)),), LOST),
        ((Uplink("eth0", 2, frozenset({OWN}), gateways=(NEXT,)),), READY),
        (
            (
                Uplink("eth0", 2, frozenset({OWN})),
                Uplink("eth1", 3, gateways=(NEXT,)),
            ),
            LOST,
        ),
        (
            (
                Uplink("eth0", 2),
                Uplink("eth1", 3, frozenset({OWN}), gateways=(NEXT,)),
            ),
            READY,
        ),
    ],
    ids=[
        "none",
        "one that is bare",
        "no next hop",
        "no address",
        "both",
        "both, but not on one uplink",
        "both on the second",
    ],
)
def test_a_way_out_is_an_address_and_a_next_hop(
    uplinks: tuple[Uplink, ...], event: Uplinks
) -> None:
    assert observe(Facts(uplinks=uplinks)) is event

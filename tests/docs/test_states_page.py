# SPDX-License-Identifier: GPL-2.0-or-later
"""The page of states and traffic says what the tables say.

Run this file as a program to write the page anew.
"""

from enum import Enum
from pathlib import Path
from typing import TypeVar

from agent.machine import Machine
from firewallvm.states import FIREWALLVM
from netvm.states import NETVM
from torvm.states import TORVM
from vpn.states import VPN

PAGE = Path(__file__).parents[2] / "docs/reference/states-and-traffic.md"
HEAD = """# States and traffic

Everything that this page does not list is dropped.
Replies to what is listed are part of it, between the same two interfaces;
so are the ICMP errors about it.
What the guard drops in every state is listed in
[the security model](../explanation/security-model.md).

This page is written from the tables in the code; a test compares the two.
"""
TOR = """
The tunnel itself is TCP of tor's user: to anybody, to relays, to bridges or to one
proxy.
Behind a bridge with a transport it is what the user of that transport's program sends
to the bridge or its front.
For snowflake it is, beside TCP to the front of its broker, **UDP of the user of
snowflake to anybody**, in both IP versions, while a snowflake bridge is configured:
who lends a browser is not known before.
Where a bridge line has names, it is also the agent's questions to the uplink's
resolvers, until they are answered.
"""


S = TypeVar("S", bound=Enum)
E = TypeVar("E", bound=Enum)


def section(machine: Machine[S, E]) -> str:
    flows = sorted(
        {flow for allowed in machine.allowed.values() for flow in allowed},
        key=lambda flow: (flow.name, flow.target.value),
    )
    states = list(machine.allowed)
    rows = [
        f"| {flow.name} | {flow.source.value} | {flow.target.value} | "
        + " | ".join("yes" if flow in machine.allowed[s] else "no" for s in states)
        + " |"
        for flow in flows
    ]
    head = " | ".join(state.value for state in states)
    rule = "|---" * (3 + len(states)) + "|"
    moves = [
        f"- {state.value}, {event.value} → {after.value}"
        for (state, event), after in machine.transitions.items()
    ]
    table = [f"| flow | from | to | {head} |", rule, *rows]
    first = f"It begins as {machine.initial.value}."
    return "\n".join(
        [f"\n## {machine.name}\n", *table, "", first, "", *moves, ""],
    )


def page() -> str:
    gateways = section(NETVM) + section(FIREWALLVM)
    return HEAD + gateways + section(TORVM) + TOR + section(VPN)


def test_the_page_says_what_the_tables_say() -> None:
    assert PAGE.read_text() == page()


if __name__ == "__main__":
    PAGE.write_text(page())

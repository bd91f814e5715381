# SPDX-License-Identifier: GPL-2.0-or-later
"""When a changed list takes nothing away, which spares a look at live flows."""

from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules.decide import Packet, decide
from rules.ground import Ground, ground, only_loosens
from rules.model import Action, Family, Policy, Rule, family
from rules.parse import parse_text
from tests.rules.rule_strategies import EDGE_PORTS, RESOLVERS, actions, addresses
from tests.rules.rule_strategies import rules as any_rule

RESOLVED = frozenset(map(ip_address, RESOLVERS))
packets = st.builds(
    Packet, addresses, st.sampled_from((6, 17)), st.sampled_from(EDGE_PORTS)
)
lists = st.lists(any_rule(), max_size=4)
ALLOW, DENY = "accept dst4=192.0.2.0/24", "drop dst4=192.0.2.1/32"


def grounded(policy: Policy, of: Family = Family.IPV4) -> Ground:
    return ground(policy, of, {}, RESOLVED, now=0)


def accepts(policy: Policy, packet: Packet) -> bool:
    return decide(policy, packet, {}, RESOLVED, 0).action is Action.ACCEPT


@settings(max_examples=100)
@given(lists, lists, lists, lists, actions, actions, st.lists(packets, max_size=20))
def test_what_only_loosens_takes_no_packet_away(  # noqa: PLR0917
    head: list[Rule],
    gone: list[Rule],
    come: list[Rule],
    tail: list[Rule],
    before: Action,
    after: Action,
    sent: list[Packet],
) -> None:
    old = Policy((*head, *gone, *tail), before)
    new = Policy((*head, *come, *tail), after)

    for packet in sent:
        of = family(packet.dst)
        if only_loosens(grounded(old, of), grounded(new, of)):
            assert accepts(new, packet) or not accepts(old, packet)


@pytest.mark.parametrize(
    ("old", "new", "loosens"),
    [
        pytest.param([ALLOW], [ALLOW], True, id="nothing changed"),
        pytest.param([DENY, ALLOW], [ALLOW], True, id="a drop is gone"),
        pytest.param([DENY], [DENY, ALLOW], True, id="an accept is new at the end"),
        pytest.param([DENY], [ALLOW, DENY], True, id="an accept is new in front"),
        pytest.param([ALLOW], [], False, id="an accept is gone"),
        pytest.param([ALLOW], [DENY, ALLOW], False, id="a drop is new"),
        pytest.param([ALLOW, DENY], [DENY, ALLOW], False, id="the order changed"),
    ],
)
def test_it_is_certain_of(old: list[str], new: list[str], *, loosens: bool) -> None:
    before, after = (
        grounded(Policy(tuple(parse_text(line, now=0) for line in lines)))
        for lines in (old, new)
    )

    assert only_loosens(before, after) is loosens


def test_a_stricter_default_does_not_loosen() -> None:
    old, new = Policy((), Action.ACCEPT), Policy((), Action.DROP)

    assert not only_loosens(grounded(old), grounded(new))
    assert only_loosens(grounded(new), grounded(old))

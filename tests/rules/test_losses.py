# SPDX-License-Identifier: GPL-2.0-or-later
"""What a changed list takes away, which spares a look at all live flows."""

from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules.decide import Packet, decide
from rules.ground import Ground, Match, ground, losses
from rules.model import Action, Family, Policy, Rule, family
from rules.parse import parse_text
from tests.rules.rule_strategies import EDGE_PORTS, RESOLVERS, actions, addresses
from tests.rules.rule_strategies import rules as any_rule

RESOLVED = frozenset(map(ip_address, RESOLVERS))
packets = st.builds(
    Packet, addresses, st.sampled_from((6, 17)), st.sampled_from(EDGE_PORTS)
)
lists = st.lists(any_rule(), max_size=4)
ALLOWED, DENIED = "192.0.2.0/24", "192.0.2.1/32"
ALLOW, DENY = f"accept dst4={ALLOWED}", f"drop dst4={DENIED}"


def grounded(policy: Policy, of: Family = Family.IPV4) -> Ground:
    return ground(policy, of, {}, RESOLVED, now=0)


def accepts(policy: Policy, packet: Packet) -> bool:
    return decide(policy, packet, {}, RESOLVED, 0).action is Action.ACCEPT


def finds(match: Match, packet: Packet) -> bool:
    networks, protocols, ports = match.networks, match.protocols, match.ports
    return (
        (networks is None or any(packet.dst in network for network in networks))
        and (protocols is None or packet.proto in protocols)
        and (ports is None or ports.first <= (packet.port or 0) <= ports.last)
    )


@settings(max_examples=100)
@given(lists, lists, lists, lists, actions, actions, st.lists(packets, max_size=20))
def test_each_packet_that_is_not_accepted_any_more_is_among_the_losses(  # noqa: PLR0917
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
        lost = losses(grounded(old, of), grounded(new, of))
        if lost is not None and not any(finds(match, packet) for match in lost):
            assert accepts(new, packet) or not accepts(old, packet)


@pytest.mark.parametrize(
    ("old", "new", "lost"),
    [
        pytest.param([ALLOW], [ALLOW], [], id="nothing changed"),
        pytest.param([DENY, ALLOW], [ALLOW], [], id="a drop is gone"),
        pytest.param([DENY], [DENY, ALLOW], [], id="an accept is new at the end"),
        pytest.param([DENY], [ALLOW, DENY], [], id="an accept is new in front"),
        pytest.param([ALLOW], [], [ALLOWED], id="an accept is gone"),
        pytest.param([ALLOW], [DENY, ALLOW], [DENIED], id="a drop is new"),
        pytest.param([ALLOW], [DENY], [ALLOWED, DENIED], id="one for the other"),
        pytest.param([ALLOW, DENY], [DENY, ALLOW], [ALLOWED, DENIED], id="the order"),
    ],
)
def test_it_is(old: list[str], new: list[str], lost: list[str]) -> None:
    before, after = (
        grounded(Policy(tuple(parse_text(line, now=0) for line in lines)))
        for lines in (old, new)
    )

    found = losses(before, after)

    assert found is not None
    assert [str(*match.networks or ()) for match in found] == lost


def test_a_stricter_default_may_take_anything_away() -> None:
    old, new = Policy((), Action.ACCEPT), Policy((), Action.DROP)

    assert losses(grounded(old), grounded(new)) is None
    assert losses(grounded(new), grounded(old)) == ()

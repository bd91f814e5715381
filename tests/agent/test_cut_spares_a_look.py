# SPDX-License-Identifier: GPL-2.0-or-later
"""Live flows are looked at only when one of them may have lost permission."""

from ipaddress import ip_address

import pytest

from agent.cut import Cutter
from agent.programs import Programs
from rules.facts import Client, Facts, Uplink
from rules.flows import BY_RULES, CLIENT_DNS
from rules.model import Family, Policy
from rules.parse import parse_value
from tests.agent.fakes import FakeConntrack

A = ip_address("10.137.0.5")
OPEN = frozenset({BY_RULES, CLIENT_DNS})
CLIENT = Client("vif1.0", 2, "00:16:3e:5e:6c:00", A)  # type: ignore[arg-type]
FACTS = Facts((CLIENT,), (Uplink("eth0", 1, frozenset({ip_address("10.138.0.2")})),))
WEB, SSH, NO = (
    "action=accept dst4=192.0.2.0/24 proto=tcp dstports=443-443",
    "action=accept dst4=192.0.2.0/24 proto=tcp dstports=22-22",
    "action=drop dst4=192.0.2.1/32",
)


def commit(programs: Programs, *rules: str) -> None:
    parsed = (parse_value(rule.encode(), Family.IPV4) for rule in rules)
    programs.commit(A, Policy(tuple(parsed)))


@pytest.mark.parametrize(
    ("before", "after", "looks"),
    [
        pytest.param([WEB], [WEB, SSH], False, id="an accept more"),
        pytest.param([NO, WEB], [WEB], False, id="a drop less"),
        pytest.param([WEB, SSH], [WEB], True, id="an accept less"),
        pytest.param([WEB], [NO, WEB], True, id="a drop more"),
    ],
)
def test_a_changed_list_has_its_flows_looked_at_if_it_is_stricter(
    before: list[str], after: list[str], *, looks: bool
) -> None:
    conntrack, programs = FakeConntrack(), Programs()
    cutter = Cutter(conntrack)
    commit(programs, *before)
    cutter.cut(OPEN, FACTS, programs, {A})
    conntrack.asked.clear()

    commit(programs, *after)
    cutter.cut(OPEN, FACTS, programs, {A})

    assert conntrack.asked == ([frozenset({A})] if looks else [])


def test_what_was_compared_once_is_not_compared_after_it_was_away() -> None:
    conntrack, programs = FakeConntrack(), Programs()
    cutter = Cutter(conntrack)
    commit(programs, NO)
    cutter.cut(OPEN, FACTS, programs, {A})
    cutter.cut(OPEN, Facts((), FACTS.uplinks), programs, ())
    commit(programs, WEB, SSH)
    cutter.cut(OPEN, FACTS, programs, ())
    conntrack.asked.clear()

    commit(programs, WEB)
    cutter.cut(OPEN, FACTS, programs, {A})

    assert conntrack.asked == [frozenset({A})]

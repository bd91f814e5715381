# SPDX-License-Identifier: GPL-2.0-or-later
"""Live flows are looked at only when one of them may have lost permission."""

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.cut import FEW, Cutter
from agent.ports import LiveFlow
from agent.programs import Programs
from rules.decide import Packet
from rules.facts import Client, Facts, Uplink
from rules.flows import BY_RULES, CLIENT_DNS
from rules.model import Family, Policy, Rule, family
from rules.parse import parse_value
from tests.agent.fakes import FakeConntrack
from tests.rules.rule_strategies import EDGE_PORTS, addresses, rules

A = ip_address("10.137.0.5")
OPEN = frozenset({BY_RULES, CLIENT_DNS})
CLIENT = Client("vif1.0", 2, "00:16:3e:5e:6c:00", A)  # type: ignore[arg-type]
FACTS = Facts((CLIENT,), (Uplink("eth0", 1, frozenset({ip_address("10.138.0.2")})),))
HERE = replace(FACTS, here=frozenset({ip_address("192.0.2.1")}))
WEB, SSH, NO, ONE, NO_SSH, TWO, PORTS, HOST = (
    "action=accept dst4=192.0.2.0/24 proto=tcp dstports=443-443",
    "action=accept dst4=192.0.2.0/24 proto=tcp dstports=22-22",
    "action=drop dst4=192.0.2.1/32",
    "action=accept dst4=192.0.2.1/32 proto=tcp dstports=22-22",
    "action=drop dst4=192.0.2.1/32 proto=tcp dstports=22-22",
    "action=accept dst4=192.0.2.0/31 proto=tcp dstports=22-22",
    "action=accept dst4=192.0.2.1/32 proto=tcp dstports=22-23",
    "action=accept dst4=192.0.2.1/32 proto=tcp",
)


HOSTS = [
    f"action=accept dst4=192.0.2.{n}/32 proto=tcp dstports=22-22"
    for n in range(FEW + 1)
]
to_v4 = addresses.filter(lambda address: family(address) is Family.IPV4)
some_ports = st.sampled_from(EDGE_PORTS)
packets = st.builds(Packet, to_v4, st.sampled_from((6, 17)), some_ports)
narrow = st.builds(
    "action={0} dst4={1}/32 proto={2} dstports={3}-{3}".format,
    st.sampled_from(("accept", "drop")),
    to_v4,
    st.sampled_from(("tcp", "udp")),
    some_ports,
).map(lambda text: parse_value(text.encode(), Family.IPV4))
lists = st.lists(narrow | rules(), max_size=4)


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
        pytest.param([WEB, ONE], [WEB], False, id="an accept of one address less"),
        pytest.param([WEB], [NO_SSH, WEB], False, id="a drop of one address more"),
        pytest.param([TWO], [], True, id="an accept of two addresses less"),
        pytest.param([PORTS], [], True, id="an accept of two ports less"),
        pytest.param([HOST], [], True, id="an accept of all ports less"),
        pytest.param(HOSTS[:FEW], [], False, id="a few accepts of one address less"),
        pytest.param(HOSTS, [], True, id="more of them"),
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


TCP = 6
ONE_FLOW, SAME_PORT, SAME_HOST = (
    LiveFlow(A, ip_address(to), TCP, port, None, ip_address(to), b"")
    for to, port in (("192.0.2.1", 22), ("192.0.2.2", 22), ("192.0.2.1", 443))
)


@pytest.mark.parametrize("finds", [True, False], ids=["by the kernel", "by a look"])
def test_a_rule_about_one_address_and_port_ends_its_flows_alone(*, finds: bool) -> None:
    conntrack, programs = FakeConntrack(finds=finds), Programs()
    cutter = Cutter(conntrack)
    commit(programs, WEB, SSH)
    cutter.cut(OPEN, FACTS, programs, {A})
    conntrack.live = [ONE_FLOW, SAME_PORT, SAME_HOST]
    conntrack.asked.clear()

    commit(programs, NO_SSH, WEB, SSH)
    cutter.cut(OPEN, FACTS, programs, {A})

    assert conntrack.live == [SAME_PORT, SAME_HOST]
    assert conntrack.asked == ([] if finds else [frozenset({A})])


@pytest.mark.parametrize(
    ("rules", "facts"),
    [
        pytest.param([SSH], FACTS, id="by another rule"),
        pytest.param([], HERE, id="which is this domain"),
    ],
)
def test_a_rule_that_goes_ends_no_flow_that_is_allowed(
    rules: list[str], facts: Facts
) -> None:
    conntrack, programs = FakeConntrack(), Programs()
    cutter = Cutter(conntrack)
    commit(programs, ONE, *rules)
    cutter.cut(OPEN, facts, programs, {A})
    conntrack.live = [ONE_FLOW]

    commit(programs, *rules)
    cutter.cut(OPEN, facts, programs, {A})

    assert conntrack.live == [ONE_FLOW]
    assert conntrack.ended == []


@settings(max_examples=50)
@given(lists, lists, lists, st.lists(packets, max_size=20))
def test_what_stays_is_what_is_allowed_whoever_finds_it(
    both: list[Rule], old: list[Rule], new: list[Rule], sent: list[Packet]
) -> None:
    for finds in (True, False):
        conntrack, programs = FakeConntrack(finds=finds), Programs()
        cutter = Cutter(conntrack)
        programs.commit(A, Policy((*both, *old)))
        cutter.cut(OPEN, FACTS, programs, {A})
        conntrack.live = [
            LiveFlow(A, packet.dst, packet.proto, packet.port, None, packet.dst, b"")
            for packet in sent
            if programs.allows(A, packet)
        ]
        allowed = []

        programs.commit(A, Policy((*both, *new)))
        for flow in conntrack.live:
            packet = Packet(flow.dst, flow.proto, flow.port)
            allowed += [flow] if programs.allows(A, packet) else []
        cutter.cut(OPEN, FACTS, programs, {A})

        assert conntrack.live == allowed


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

# SPDX-License-Identifier: GPL-2.0-or-later
"""Flows that lost permission are cut, and no other."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from agent.cut import Cutter
from agent.ports import LiveFlow, NetlinkError
from agent.programs import Programs
from rules.facts import Client, Facts, Gateway, Redirect, Uplink
from rules.flows import (
    BY_RULES,
    CARRIED,
    CLIENT_DNS,
    CONTROL_PORT,
    INTO_DAEMON,
    PING,
)
from rules.model import Family, Policy
from rules.parse import parse_value
from tests.agent.fakes import FakeConntrack

OPEN, BLOCKED = frozenset({PING, BY_RULES, CLIENT_DNS}), frozenset({PING})
SERVED = frozenset({PING, CARRIED, INTO_DAEMON})
MAC = "00:16:3e:5e:6c:00"
A, B, A6 = map(ip_address, ("10.137.0.5", "10.138.0.7", "fd09:24ef:4179::a89:5"))
OWN, OWN2 = map(ip_address, ("198.18.0.2", "198.18.0.3"))
DNS1, DNS2 = map(ip_address, ("10.139.1.1", "10.139.1.2"))
REAL, OTHER = map(ip_address, ("203.0.113.53", "203.0.113.54"))
TCP, UDP, ICMP, GRE = 6, 17, 1, 47
CLIENT_A = Client("vif1.0", 11, MAC, A, A6)  # type: ignore[arg-type]
CLIENT_B = Client("vif2.0", 12, MAC, B)  # type: ignore[arg-type]
ETH0 = Uplink("eth0", 2, frozenset({OWN}), gateways=(ip_address("198.18.0.1"),))
FACTS = Facts((CLIENT_A, CLIENT_B), (ETH0,), {DNS1: REAL, DNS2: REAL})
RULES = (
    "action=accept dst4=192.0.2.0/24 proto=tcp dstports=443-443",
    "action=accept specialtarget=dns",
    "action=accept proto=icmp icmptype=8",
)


def flow(
    dst: object,
    proto: int = TCP,
    port: int | None = 443,
    *,
    src: object = A,
    answered_by: object = None,
    icmp_type: int | None = None,
) -> LiveFlow:
    to = ip_address(str(dst))
    answer = ip_address(str(answered_by or dst))
    return LiveFlow(ip_address(str(src)), to, proto, port, icmp_type, answer, b"")


STAYS = {
    "allowed": flow("192.0.2.1"),
    "DNS to the real server": flow(DNS1, UDP, 53, answered_by=REAL),
    "DNS to the other virtual server": flow(DNS2, TCP, 53, answered_by=REAL),
    "a ping": flow("198.51.100.1", ICMP, None, icmp_type=8),
    "another client, by a rule of the user": flow(B, TCP, 22),
    "of a client with other rules": flow("192.0.2.1", src=B),
    "not of a client": flow("192.0.2.1", TCP, 80, src="198.18.0.2"),
}
ALLOWED, OF_B = STAYS["allowed"], STAYS["of a client with other rules"]
GOES = {
    "another port": flow("192.0.2.1", TCP, 80),
    "another protocol": flow("192.0.2.1", UDP, 443),
    "a protocol without ports": flow("192.0.2.1", GRE, None),
    "another address": flow("198.51.100.1"),
    "IPv6, which has no rule": flow("2001:db8::1", src=A6),
    "DNS to a server of old": flow(DNS1, UDP, 53, answered_by=OTHER),
    "DNS to a foreign server": flow("8.8.8.8", UDP, 53),
    "another ICMP type": flow("198.51.100.1", ICMP, None, icmp_type=13),
}


@pytest.fixture
def conntrack() -> FakeConntrack:
    return FakeConntrack()


@pytest.fixture
def cutter(conntrack: FakeConntrack) -> Cutter:
    return Cutter(conntrack)


@pytest.fixture
def programs() -> Programs:
    made = Programs()
    made.learn({}, frozenset({DNS1, DNS2, REAL}))
    commit(made, A, *RULES)
    commit(made, B, "action=accept")
    commit(made, A6)
    return made


def commit(programs: Programs, address: object, *rules: str) -> None:
    parsed = (parse_value(rule.encode(), Family.IPV4) for rule in rules)
    programs.commit(address, Policy(tuple(parsed)))  # type: ignore[arg-type]


def settle(cutter: Cutter, conntrack: FakeConntrack, programs: Programs) -> None:
    """Have the facts in force, and forget what that did."""
    cutter.cut(OPEN, FACTS, programs, ())
    conntrack.asked.clear()
    conntrack.effects.clear()


@pytest.fixture(params=["at the start", "later"])
def either(
    request: pytest.FixtureRequest,
    conntrack: FakeConntrack,
    cutter: Cutter,
    programs: Programs,
) -> Cutter:
    """One that has not cut yet, and one that has."""
    if request.param == "later":
        settle(cutter, conntrack, programs)
    return cutter


def test_flows_that_go_do_so_together(
    conntrack: FakeConntrack, cutter: Cutter, programs: Programs
) -> None:
    """A client may have very many, and nobody else is served meanwhile."""
    conntrack.live = [*GOES.values(), *STAYS.values()]

    cutter.cut(OPEN, FACTS, programs, {A, A6, B})

    assert conntrack.deletions == [len(GOES)]


@pytest.mark.parametrize(
    ("live", "stays"),
    [*((each, True) for each in STAYS.values()), *((x, False) for x in GOES.values())],
    ids=[*STAYS, *GOES],
)
def test_a_flow_stays_if_it_is_allowed_and_goes_if_not(
    conntrack: FakeConntrack,
    either: Cutter,
    programs: Programs,
    live: LiveFlow,
    *,
    stays: bool,
) -> None:
    conntrack.live = [ALLOWED, live]

    either.cut(OPEN, FACTS, programs, {A, A6, B})

    assert conntrack.live == ([ALLOWED, live] if stays else [ALLOWED])


def test_without_a_change_nobody_is_asked(
    conntrack: FakeConntrack, cutter: Cutter, programs: Programs
) -> None:
    settle(cutter, conntrack, programs)

    cutter.cut(OPEN, FACTS, programs, ())
    cutter.cut(OPEN, replace(FACTS), programs, ())

    assert conntrack.asked == []


def test_a_changed_list_concerns_the_flows_of_its_client(
    conntrack: FakeConntrack, cutter: Cutter, programs: Programs
) -> None:
    settle(cutter, conntrack, programs)
    conntrack.live = [ALLOWED, OF_B]
    commit(programs, A)

    cutter.cut(OPEN, FACTS, programs, {A, ip_address("10.137.0.99")})

    assert conntrack.live == [OF_B]
    assert conntrack.asked == [{A}]


def test_other_resolvers_concern_everybodys_dns(
    conntrack: FakeConntrack, cutter: Cutter, programs: Programs
) -> None:
    settle(cutter, conntrack, programs)
    old = flow(DNS1, UDP, 53, answered_by=REAL)
    new = flow(DNS1, UDP, 53, answered_by=OTHER)
    conntrack.live = [old, new, ALLOWED, replace(old, src=B)]
    programs.learn({}, frozenset({DNS1, DNS2, OTHER}))

    cutter.cut(OPEN, replace(FACTS, dns={DNS1: OTHER}), programs, ())

    assert conntrack.live == [new, ALLOWED]


def test_a_state_without_clients_has_no_flow_of_them(
    conntrack: FakeConntrack, either: Cutter, programs: Programs
) -> None:
    foreign = STAYS["not of a client"]
    conntrack.live = [ALLOWED, OF_B, foreign]

    either.cut(BLOCKED, FACTS, programs, ())

    assert conntrack.live == [foreign]


def test_a_state_that_allows_more_cuts_nothing(
    conntrack: FakeConntrack, cutter: Cutter, programs: Programs
) -> None:
    cutter.cut(BLOCKED, FACTS, programs, ())
    conntrack.live = [flow("198.51.100.1")]

    cutter.cut(OPEN, FACTS, programs, ())

    assert conntrack.live == [flow("198.51.100.1")]


TO_IT = flow(A, TCP, 22, src=B)
# What there is afterwards, and which of the flows `ALLOWED`, `TO_IT`, `OF_B` stay.
CHANGES = {
    "the uplink is gone": (replace(FACTS, uplinks=()), []),
    "the uplink is created anew": (
        replace(FACTS, uplinks=(replace(ETH0, index=3),)),
        [],
    ),
    "the uplink has one more address": (
        replace(FACTS, uplinks=(replace(ETH0, own=frozenset({OWN, OWN2})),)),
        [ALLOWED, TO_IT, OF_B],
    ),
    "the uplink has another next hop": (
        replace(FACTS, uplinks=(replace(ETH0, gateways=(OWN2,)),)),
        [ALLOWED, TO_IT, OF_B],
    ),
    "there is one more uplink": (
        replace(FACTS, uplinks=(ETH0, Uplink("eth1", 3, frozenset({OWN2})))),
        [ALLOWED, TO_IT, OF_B],
    ),
    "the client is gone": (replace(FACTS, clients=(CLIENT_B,)), [OF_B]),
    "the client is behind another vif": (
        replace(FACTS, clients=(replace(CLIENT_A, vif="vif9.0", index=19), CLIENT_B)),
        [OF_B],
    ),
    "the client has another MAC": (
        replace(FACTS, clients=(replace(CLIENT_A, mac="00:16:3e:5e:6c:09"), CLIENT_B)),
        [OF_B],
    ),
}


@pytest.mark.parametrize(("after", "stay"), CHANGES.values(), ids=CHANGES)
def test_flows_do_not_outlive_their_client_or_what_they_were_translated_to(
    conntrack: FakeConntrack,
    cutter: Cutter,
    programs: Programs,
    after: Facts,
    stay: list[LiveFlow],
) -> None:
    """But an uplink that gets more takes nothing from anybody."""
    settle(cutter, conntrack, programs)
    conntrack.live = [ALLOWED, TO_IT, OF_B]

    cutter.cut(OPEN, after, programs, ())

    assert conntrack.live == stay


def test_who_is_new_has_no_flows_of_whoever_had_the_address(
    conntrack: FakeConntrack, cutter: Cutter
) -> None:
    conntrack.live = [ALLOWED, OF_B]

    cutter.forget((CLIENT_A,))
    cutter.forget(())

    assert conntrack.live == [OF_B]
    assert conntrack.effects == [f"flush {A}", f"flush {A6}"]


def test_what_fails_half_way_is_done_again(
    conntrack: FakeConntrack, either: Cutter, programs: Programs
) -> None:
    conntrack.live = [GOES["DNS to a server of old"]]
    conntrack.refuses = NetlinkError(16, "busy")
    facts = replace(FACTS, resolvers=frozenset({REAL}), dns={DNS1: REAL})

    with pytest.raises(NetlinkError):
        either.cut(OPEN, facts, programs, ())
    conntrack.refuses = None
    either.cut(OPEN, facts, programs, ())

    assert conntrack.live == []


def test_flows_that_end_at_another_port_now_are_cut(
    conntrack: FakeConntrack, cutter: Cutter, programs: Programs
) -> None:
    """A client's new identity: who was there stays, and so does the other client."""
    ports = {CLIENT_A.index: Redirect(9100, 9101), CLIENT_B.index: Redirect(9102, 9103)}
    before = replace(FACTS, kind=Gateway.PROXY, redirects=ports)
    cutter.cut(SERVED, before, programs, {A, A6, B})
    conntrack.live = [ALLOWED, OF_B]

    moved = {**ports, CLIENT_A.index: Redirect(9104, 9105)}
    cutter.cut(SERVED, replace(before, redirects=moved), programs, set())

    assert conntrack.live == [OF_B]


HERE = ip_address("10.137.0.2")
CONTROLLED = {
    CLIENT_A.index: Redirect(9100, 9101, 0, 9052),
    CLIENT_B.index: Redirect(9102, 9103),
}
ASKED = frozenset({PING, CARRIED, CONTROL_PORT, INTO_DAEMON})
WITH_PORT = replace(
    FACTS, kind=Gateway.PROXY, redirects=CONTROLLED, here=frozenset({HERE})
)
ASKS = flow(HERE, port=9051)


@pytest.mark.parametrize("why", ["another identity", "nobody is served", "both"])
def test_who_asks_the_agent_is_not_cut_off_from_it(
    conntrack: FakeConntrack, cutter: Cutter, programs: Programs, why: str
) -> None:
    """It would never hear that it has another identity; all its other flows go."""
    cutter.cut(ASKED, WITH_PORT, programs, {A, A6, B})
    conntrack.live = [
        ASKS,
        ALLOWED,
        flow(HERE, port=9050),
        flow(HERE, UDP, 9051),
        flow("192.0.2.1", port=9051),
    ]
    moved = {**CONTROLLED, CLIENT_A.index: Redirect(9104, 9105, 0, 9052)}
    changed = {} if why == "nobody is served" else {"redirects": moved}
    allowed = ASKED if why == "another identity" else ASKED - {INTO_DAEMON}

    cutter.cut(allowed, replace(WITH_PORT, **changed), programs, set())

    assert conntrack.live == [ASKS]


@pytest.mark.parametrize(
    "after",
    [
        replace(WITH_PORT, clients=(CLIENT_B,)),
        replace(
            WITH_PORT,
            redirects={**CONTROLLED, CLIENT_A.index: Redirect(9100, 9101)},
        ),
    ],
    ids=["it is gone", "its control port is gone"],
)
def test_who_may_not_ask_any_more_is_cut_off(
    conntrack: FakeConntrack, cutter: Cutter, programs: Programs, after: Facts
) -> None:
    cutter.cut(ASKED, WITH_PORT, programs, {A, A6, B})
    conntrack.live = [ASKS]

    cutter.cut(ASKED, after, programs, set())

    assert conntrack.live == []

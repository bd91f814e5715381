# SPDX-License-Identifier: GPL-2.0-or-later
"""Every client has its program, and a change compiles no more than it touches."""

from ipaddress import ip_address

import pytest

from agent.programs import NOT_COMMITTED, Programs
from rules.decide import Packet
from rules.model import Action, Family, Policy, Refused
from rules.objects import Chain
from rules.parse import parse_value

A, B = ip_address("10.137.0.5"), ip_address("10.138.0.7")
A6 = ip_address("fd09:24ef:4179::a89:5")
WEB, WEB2 = ip_address("192.0.2.80"), ip_address("192.0.2.81")
VIRTUAL = ip_address("10.139.1.1")
DENY = ('goto refuse comment "default"',)


def policy(*rules: str) -> Policy:
    return Policy(tuple(parse_value(rule.encode(), Family.IPV4) for rule in rules))


WEBSITE = policy("action=accept dsthost=a.example proto=tcp dstports=443-443")
OTHER = policy("action=accept dsthost=b.example")
ASKS = policy("action=accept specialtarget=dns")
PLAIN = policy("action=accept dst4=192.0.2.0/24")


@pytest.fixture
def programs() -> Programs:
    return Programs()


def text(programs: Programs, address: object) -> str:
    objects = programs[address].objects  # type: ignore[index]
    return str([o.rules for o in objects.values() if isinstance(o, Chain)])


def rules(programs: Programs, address: object) -> object:
    (chain,) = programs[address].objects.values()  # type: ignore[index]
    return chain.rules  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "policy",
    [None, NOT_COMMITTED, Refused("rule 0000: nonsense"), Policy(())],
    ids=["no list", "not committed", "refused", "empty"],
)
def test_whoever_has_no_rules_is_denied(
    programs: Programs, policy: Policy | Refused | None
) -> None:
    if policy is not None:
        programs.commit(A, policy)

    assert rules(programs, A) == DENY
    assert not programs.allows(A, Packet(WEB, 6, 443))


def test_a_list_becomes_a_program(programs: Programs) -> None:
    assert programs.commit(A, PLAIN)

    assert "192.0.2.0/24" in text(programs, A)
    assert programs.allows(A, Packet(WEB, 6, 443))
    assert not programs.allows(B, Packet(WEB, 6, 443))


def test_the_same_list_again_is_no_change(programs: Programs) -> None:
    programs.commit(A, PLAIN)
    before = programs[A].objects

    assert not programs.commit(A, policy("action=accept dst4=192.0.2.0/24"))
    assert programs[A].objects is before


def test_a_refused_list_says_why_until_it_is_fine(programs: Programs) -> None:
    programs.commit(A, Refused("rule 0000: nonsense"))
    assert programs.errors() == {A: "rule 0000: nonsense"}

    programs.commit(A, PLAIN)
    assert programs.errors() == {}


def test_an_answer_concerns_those_who_name_the_host(programs: Programs) -> None:
    programs.commit(A, WEBSITE)
    programs.commit(B, OTHER)
    other = programs[B].objects

    assert programs.learn({"a.example": frozenset({WEB})}, frozenset()) == {A}
    assert str(WEB) in text(programs, A)
    assert programs.allows(A, Packet(WEB, 6, 443))
    assert programs[B].objects is other


def test_an_address_that_moves_is_not_allowed_any_more(programs: Programs) -> None:
    programs.commit(A, WEBSITE)
    programs.learn({"a.example": frozenset({WEB})}, frozenset())

    assert programs.learn({"a.example": frozenset({WEB2})}, frozenset()) == {A}
    assert not programs.allows(A, Packet(WEB, 6, 443))


def test_an_address_of_the_other_version_concerns_nobody(programs: Programs) -> None:
    programs.commit(A, WEBSITE)
    found = frozenset({ip_address("2001:db8::1")})

    assert programs.learn({"a.example": found}, frozenset()) == frozenset()


def test_a_name_that_nobody_knows_concerns_nobody(programs: Programs) -> None:
    programs.commit(A, WEBSITE)

    assert programs.learn({"a.example": frozenset()}, frozenset()) == frozenset()


def test_the_same_answers_again_compile_nothing(programs: Programs) -> None:
    programs.commit(A, WEBSITE)
    programs.learn({"a.example": frozenset({WEB})}, frozenset())

    assert programs.learn({"a.example": frozenset({WEB})}, frozenset()) == frozenset()


def test_a_list_that_comes_after_the_answer_knows_it(programs: Programs) -> None:
    programs.learn({"a.example": frozenset({WEB})}, frozenset())
    programs.commit(A, WEBSITE)

    assert programs.allows(A, Packet(WEB, 6, 443))


def test_other_resolvers_concern_those_who_ask_dns(programs: Programs) -> None:
    programs.commit(A, ASKS)
    programs.commit(B, PLAIN)

    assert programs.learn({}, frozenset({VIRTUAL})) == {A}
    assert programs.allows(A, Packet(VIRTUAL, 17, 53))


def test_only_those_who_are_known_are_kept(programs: Programs) -> None:
    programs.commit(A, WEBSITE)
    programs.commit(B, OTHER)

    assert programs.keep(frozenset({A, A6})) == {A6}
    assert programs.hosts() == {"a.example"}
    assert rules(programs, B) == DENY


def test_what_names_are_taken_for_is_told_by_client(programs: Programs) -> None:
    programs.commit(A, WEBSITE)
    programs.commit(B, WEBSITE)
    programs.learn({"a.example": frozenset({WEB})}, frozenset())
    both = {(A, "a.example"): frozenset({WEB}), (B, "a.example"): frozenset({WEB})}
    assert programs.resolved() == both

    programs.keep(frozenset({A}))
    assert programs.resolved() == {(A, "a.example"): frozenset({WEB})}
    programs.commit(A, OTHER)
    assert programs.resolved() == {(A, "b.example"): frozenset()}
    programs.learn({"b.example": frozenset({WEB2})}, frozenset())
    assert programs.resolved() == {(A, "b.example"): frozenset({WEB2})}


def test_it_is_the_same_object_until_it_changes(programs: Programs) -> None:
    programs.commit(A, WEBSITE)
    before = programs.resolved()
    programs.commit(B, PLAIN)

    assert programs.resolved() is before


def test_a_default_that_accepts_accepts(programs: Programs) -> None:
    programs.commit(A, Policy((), Action.ACCEPT))

    assert programs.allows(A, Packet(WEB, 47))

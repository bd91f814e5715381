# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules in the kernel become what is wanted, or closed, and never else.

The firewall of these tests understands what it is sent; a transaction it
refuses changes nothing.
"""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from agent.enforce import BATCH, CannotEnforceError, Enforcer
from agent.ports import FirewallError
from agent.programs import Programs
from rules.facts import Client, Facts, Uplink
from rules.flows import BY_RULES, PING
from rules.model import Family, Policy
from rules.objects import Map
from rules.parse import parse_value
from tests.agent.fakes import FakeFirewall

MAC = "00:16:3e:5e:6c:00"
OPEN, BLOCKED = frozenset({PING, BY_RULES}), frozenset({PING})
UPLINK = Uplink("eth0", 2, own=frozenset({ip_address("10.137.0.9")}))
DENIED = ['goto refuse comment "default"']
TABLE = "ip qubes"


def ip(number: int) -> str:
    return f"10.137.1.{number}"


def chain(number: int) -> str:
    return f"q_10-137-1-{number}"


def facts(*numbers: int, offset: int = 10) -> Facts:
    clients = (Client(f"vif{n}.0", offset + n, MAC, ip_address(ip(n))) for n in numbers)  # type: ignore[arg-type]
    return Facts(clients=tuple(clients), uplinks=(UPLINK,))


def allow(programs: Programs, number: int, *destinations: str) -> None:
    rules = (f"action=accept dst4={destination}" for destination in destinations)
    parsed = (parse_value(rule.encode(), Family.IPV4) for rule in rules)
    programs.commit(ip_address(ip(number)), Policy(tuple(parsed)))


@pytest.fixture
def firewall() -> FakeFirewall:
    return FakeFirewall([])


@pytest.fixture
def enforcer(firewall: FakeFirewall) -> Enforcer:
    return Enforcer(firewall)


@pytest.fixture
def programs() -> Programs:
    made = Programs()
    for number in (1, 2, 3):
        allow(made, number, f"192.0.2.{number}")
    return made


def allowed(firewall: FakeFirewall) -> dict[str, bool]:
    """Return which clients have more than a denial."""
    chains = firewall.client_chains()
    return {name: rules != DENIED for name, rules in chains.items()}


def dispatch(firewall: FakeFirewall) -> set[str]:
    return set(firewall.elements(TABLE, "clients").values())


def refuse(firewall: FakeFirewall, *words: str) -> None:
    firewall.refuses = lambda script: any(word in script for word in words)


def know(programs: Programs, *numbers: int) -> None:
    """Let dom0 know these clients and no other."""
    programs.keep(frozenset(ip_address(ip(number)) for number in numbers))


def test_every_client_gets_its_program_before_anything_leads_to_it(
    firewall: FakeFirewall, enforcer: Enforcer, programs: Programs
) -> None:
    assert enforcer.enforce(OPEN, facts(1, 2), programs)

    assert allowed(firewall) == {chain(1): True, chain(2): True, chain(3): True}
    assert dispatch(firewall) == {f"goto {chain(1)}", f"goto {chain(2)}"}
    assert firewall.elements(TABLE, "up") == {"2": ""}
    assert enforcer.errors() == {}


def test_without_a_change_nothing_is_loaded(
    firewall: FakeFirewall, enforcer: Enforcer, programs: Programs
) -> None:
    enforcer.enforce(OPEN, facts(1, 2), programs)
    loads, generation = len(firewall.loads), enforcer.generation
    allow(programs, 1, "192.0.2.1")

    assert not enforcer.enforce(OPEN, facts(1, 2), programs)
    assert (len(firewall.loads), enforcer.generation) == (loads, generation)


def test_a_change_is_one_transaction_about_itself(
    firewall: FakeFirewall, enforcer: Enforcer, programs: Programs
) -> None:
    enforcer.enforce(OPEN, facts(1, 2), programs)
    loads = len(firewall.loads)
    allow(programs, 1, "198.51.100.1")

    assert enforcer.enforce(OPEN, facts(1, 2), programs)
    (script,) = firewall.loads[loads:]
    assert chain(2) not in script
    assert "198.51.100.1" in str(firewall.rules(TABLE, chain(1)))
    assert "192.0.2.1" not in str(firewall.rules(TABLE, chain(1)))


def test_a_client_that_comes_or_goes_changes_elements_alone(
    firewall: FakeFirewall, enforcer: Enforcer, programs: Programs
) -> None:
    enforcer.enforce(OPEN, facts(1), programs)
    loads = len(firewall.loads)

    for present in ((1, 2), (2,)):
        enforcer.enforce(OPEN, facts(*present), programs)
        assert dispatch(firewall) == {f"goto {chain(n)}" for n in present}

    lines = "".join(firewall.loads[loads:]).splitlines()
    assert {line.split()[1] for line in lines} == {"element"}


def test_a_client_that_nobody_knows_any_more_leaves_nothing(
    firewall: FakeFirewall, enforcer: Enforcer, programs: Programs
) -> None:
    enforcer.enforce(OPEN, facts(1, 2), programs)
    know(programs, 2)
    enforcer.enforce(OPEN, facts(2), programs)

    assert allowed(firewall) == {chain(2): True}
    assert dispatch(firewall) == {f"goto {chain(2)}"}


def test_a_client_behind_another_vif_keeps_its_program(
    firewall: FakeFirewall, enforcer: Enforcer, programs: Programs
) -> None:
    enforcer.enforce(OPEN, facts(1), programs)
    enforcer.enforce(OPEN, facts(1, offset=20), programs)

    assert firewall.elements(TABLE, "clients") == {f"21 . {ip(1)}": f"goto {chain(1)}"}


def test_what_an_earlier_agent_left_is_replaced_and_swept(
    firewall: FakeFirewall, programs: Programs
) -> None:
    before = Programs()
    allow(before, 1, "203.0.113.1")
    allow(before, 9, *(f"203.0.113.{n}" for n in range(20)))
    Enforcer(firewall).enforce(OPEN, facts(1, 9), before)
    firewall.load("add chain ip qubes q_stale\nadd chain ip qubes custom-forward\n")

    know(programs, 1, 2)
    Enforcer(firewall).enforce(OPEN, facts(1, 2), programs)

    assert allowed(firewall) == {chain(1): True, chain(2): True}
    assert firewall.rules(TABLE, chain(1))[0].startswith("ct original ip daddr 192.0.2")
    assert dispatch(firewall) == {f"goto {chain(1)}", f"goto {chain(2)}"}
    assert firewall.rules(TABLE, "custom-forward") == []
    assert not [key for key in firewall.content if key.name.startswith("q_10-137-1-9")]


def test_a_start_replaces_programs_before_anything_leads_to_them(
    firewall: FakeFirewall, enforcer: Enforcer
) -> None:
    programs = Programs()
    numbers = range(1, BATCH * 2 + 2)
    for number in numbers:
        allow(programs, number, "192.0.2.1")

    enforcer.enforce(OPEN, facts(*numbers), programs)

    assert ["element" in script for script in firewall.loads] == [False] * 3 + [True]
    assert firewall.released == 1


def test_a_refused_program_denies_its_client_alone(
    firewall: FakeFirewall, enforcer: Enforcer, programs: Programs
) -> None:
    enforcer.enforce(OPEN, facts(1, 2, 3), programs)
    for number in (1, 2, 3):
        allow(programs, number, f"198.51.100.{number}")
    refuse(firewall, "198.51.100.2")

    enforcer.enforce(OPEN, facts(1, 2, 3), programs)

    assert allowed(firewall) == {chain(1): True, chain(2): False, chain(3): True}
    assert "198.51.100.3" in str(firewall.rules(TABLE, chain(3)))
    assert enforcer.errors() == {ip_address(ip(2)): "line 1: syntax error"}


def test_a_refused_program_is_not_tried_again_and_again(
    firewall: FakeFirewall, enforcer: Enforcer, programs: Programs
) -> None:
    enforcer.enforce(OPEN, facts(1, 2), programs)
    allow(programs, 2, "198.51.100.2")
    refuse(firewall, "198.51.100.2")
    enforcer.enforce(OPEN, facts(1, 2), programs)
    refused = len(firewall.refused)

    allow(programs, 1, "198.51.100.1")
    enforcer.enforce(OPEN, facts(1, 2, 3), programs)

    assert len(firewall.refused) == refused
    assert allowed(firewall) == {chain(1): True, chain(2): False, chain(3): True}
    assert enforcer.errors().keys() == {ip_address(ip(2))}


@pytest.mark.parametrize(
    "goes", [True, False], ids=["it is unknown", "its list changes"]
)
def test_a_refusal_is_forgotten_when(
    firewall: FakeFirewall, enforcer: Enforcer, programs: Programs, *, goes: bool
) -> None:
    know(programs, 1, 2)
    enforcer.enforce(OPEN, facts(1, 2), programs)
    allow(programs, 2, "198.51.100.2")
    refuse(firewall, "198.51.100.2")
    enforcer.enforce(OPEN, facts(1, 2), programs)

    if goes:
        know(programs, 1)
        enforcer.enforce(OPEN, facts(1), programs)
    else:
        allow(programs, 2, "192.0.2.2")
        enforcer.enforce(OPEN, facts(1, 2), programs)

    assert enforcer.errors() == {}
    assert allowed(firewall) == dict.fromkeys([chain(1), chain(2)][: 2 - goes], True)


def test_at_the_start_too_a_refused_program_denies_its_client_alone(
    firewall: FakeFirewall, programs: Programs
) -> None:
    """And the others are not closed on the way, over an agent's old rules."""
    Enforcer(firewall).enforce(OPEN, facts(1, 2, 3), programs)
    allow(programs, 2, "198.51.100.2")
    refuse(firewall, "198.51.100.2")
    loads = len(firewall.loads)
    enforcer = Enforcer(firewall)

    enforcer.enforce(OPEN, facts(1, 2, 3), programs)

    assert allowed(firewall) == {chain(1): True, chain(2): False, chain(3): True}
    assert enforcer.errors().keys() == {ip_address(ip(2))}
    frames = [
        script for script in firewall.loads[loads:] if "set ip qubes up" in script
    ]
    assert len(frames) == 1
    assert "add element ip qubes up { 2 }" in frames[0]


def test_when_nothing_but_closed_can_be_loaded_it_is_closed(
    firewall: FakeFirewall, enforcer: Enforcer, programs: Programs
) -> None:
    enforcer.enforce(OPEN, facts(1), programs)
    refuse(firewall, "13 .")  # the vif of client 3

    with pytest.raises(FirewallError, match="closed"):
        enforcer.enforce(OPEN, facts(1, 3), programs)

    assert dispatch(firewall) == set()
    assert firewall.elements(TABLE, "up") == {}
    assert firewall.client_chains() == {}


def test_at_the_start_too(
    firewall: FakeFirewall, enforcer: Enforcer, programs: Programs
) -> None:
    Enforcer(firewall).enforce(OPEN, facts(1), programs)
    refuse(firewall, "13 .")

    with pytest.raises(FirewallError, match="closed"):
        enforcer.enforce(OPEN, facts(1, 3), programs)

    assert dispatch(firewall) == set()
    assert firewall.client_chains() == {}


def test_after_it_was_closed_no_old_rule_is_left_before_the_new(
    firewall: FakeFirewall, enforcer: Enforcer, programs: Programs
) -> None:
    """A chain is filled, never added to: the first rule decides."""
    enforcer.enforce(OPEN, facts(1), programs)
    refuse(firewall, "13 .")
    with pytest.raises(FirewallError):
        enforcer.enforce(OPEN, facts(1, 3), programs)
    firewall.refuses = lambda _: False
    allow(programs, 1, "198.51.100.1")

    enforcer.enforce(OPEN, facts(1), programs)

    (only, default) = firewall.rules(TABLE, chain(1))
    assert "198.51.100.1" in only
    assert default == DENIED[0]


def test_when_not_even_closed_can_be_loaded_it_says_so(
    firewall: FakeFirewall, enforcer: Enforcer, programs: Programs
) -> None:
    firewall.refuses = lambda _: True

    with pytest.raises(CannotEnforceError):
        enforcer.enforce(OPEN, facts(1), programs)


def test_an_object_declared_otherwise_is_a_refusal(
    firewall: FakeFirewall, enforcer: Enforcer, programs: Programs
) -> None:
    """It becomes possible once the client is denied, which frees the name."""
    allow(programs, 1, *(f"192.0.2.{n}" for n in range(0, 40, 2)))
    enforcer.enforce(OPEN, facts(1), programs)
    address = ip_address(ip(1))
    objects = programs.parts[address]
    other = {
        key: replace(content, declaration=f"{content.declaration} counter;")
        if isinstance(content, Map)
        else content
        for key, content in objects.items()
    }
    assert other != objects
    programs.parts[address] = other

    enforcer.enforce(OPEN, facts(1), programs)

    assert enforcer.errors() == {}
    assert allowed(firewall)[chain(1)]


def test_the_hash_says_what_is_loaded_however_it_came_about(
    programs: Programs,
) -> None:
    straight, roundabout = (Enforcer(FakeFirewall([])) for _ in range(2))
    straight.enforce(OPEN, facts(1, 2), programs)

    seen = set()
    for state, numbers in ((BLOCKED, (2,)), (OPEN, (1, 2, 3)), (OPEN, (2,))):
        roundabout.enforce(state, facts(*numbers), programs)
        seen.add(roundabout.digest())
    allow(programs, 1, "198.51.100.1")
    roundabout.enforce(OPEN, facts(1, 2), programs)
    seen.add(roundabout.digest())
    assert len(seen | {straight.digest()}) == 5

    allow(programs, 1, "192.0.2.1")
    roundabout.enforce(OPEN, facts(1, 2), programs)
    assert roundabout.digest() == straight.digest()
    assert len(straight.digest()) == 16


def test_a_refused_transaction_changes_no_hash(
    firewall: FakeFirewall, enforcer: Enforcer, programs: Programs
) -> None:
    straight = Enforcer(FakeFirewall([]))
    refuse(firewall, "192.0.2.2")

    enforcer.enforce(OPEN, facts(1, 2, 3), programs)
    know(programs, 1, 3)
    for each in (enforcer, straight):
        each.enforce(OPEN, facts(1, 3), programs)

    assert enforcer.digest() == straight.digest()


def test_the_generation_counts_what_was_loaded(
    firewall: FakeFirewall, enforcer: Enforcer, programs: Programs
) -> None:
    assert enforcer.generation == 0
    enforcer.enforce(OPEN, facts(1), programs)
    first = enforcer.generation
    allow(programs, 1, "198.51.100.1")
    enforcer.enforce(OPEN, facts(1), programs)

    assert (first, enforcer.generation) == (1, 2)
    assert firewall.released == 1

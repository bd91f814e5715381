# SPDX-License-Identifier: GPL-2.0-or-later
"""A client's list is proved equal to its chain; what is changed behind it is found.

Each counterexample is checked twice: the list means the opposite of what the
proof says happens, and the kernel does to the real packet what the proof says.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from random import Random

import pytest

from proof import snapshot
from proof.answers import Answer, Possible, Proved, Refuted, Unknown
from proof.diagram import Budget
from proof.explore import Point
from proof.fields import DPORT, ORIGINAL_DST, PROTO, SPORT
from proof.machine import Machine
from proof.outcome import End
from proof.policy import client_is_as_its_list
from rules.decide import Packet
from rules.ground import ground
from rules.model import Action, Family, Network, Policy, Ports, Proto, Rule
from rules.objects import Chain, Key, Map, Object, Ruleset, Set, chain_name
from rules.transaction import difference
from tests.kernel import test_compiled_rules_equal_their_meaning as lists
from tests.kernel.tunnels import Tunnels, tunnels
from tests.proof.namespaces_apart import apart

pytestmark = pytest.mark.kernel

VERSIONS = {Family.IPV4: 4, Family.IPV6: 6}
LISTS, MUTATIONS = 10, 10
OPPOSITE = {"accept": "goto refuse", "goto refuse": "accept"}


@pytest.fixture
def firewall() -> Iterator[Tunnels]:
    with tunnels() as found:
        for of, table in lists.TABLES.items():
            entry = Key(table, chain_name(lists.CLIENTS[of]))
            found.apply(difference({}, {entry: Chain(())}))
            dispatch = f"forward ct direction original jump {entry.name}"
            found.apply(f"add rule {table} {dispatch}")
            found.apply(f"add rule {table} forward goto refuse")
        yield found


def answered(policy: Policy, of: Family, budget: Budget | None = None) -> Answer:
    found = snapshot.here()
    machine = Machine(found.bytecode, found.routing, VERSIONS[of], budget)
    wanted = ground(policy, of, lists.NAMES, lists.RESOLVERS, lists.NOW)
    return client_is_as_its_list(machine, lists.CLIENTS[of], wanted)


def packet_of(point: Point, of: Family) -> Packet:
    dst = lists.ADDRESS[of](point[ORIGINAL_DST])
    proto = point[PROTO]
    if proto == lists.ICMP[of]:
        return Packet(dst, proto, icmp_type=point[SPORT] >> 8)
    return Packet(dst, proto, point[DPORT] if proto in {6, 17} else None)


def can_be_sent(sent: Packet, of: Family) -> bool:
    if lists.never_received(sent.dst) or sent.proto in {0, 1, 43, 44, 58, 60}:
        return sent.icmp_type in lists.REQUESTS[of] and not lists.never_received(
            sent.dst
        )
    return True


def mutated(dice: Random, objects: Ruleset) -> Ruleset:
    """Return the objects with one rule or element gone or turned around."""
    key = dice.choice(sorted(objects, key=lambda key: key.name))
    return {**objects, key: changed(dice, objects[key])}


def changed(dice: Random, content: Object) -> Object:
    match content:
        case Chain(rules):
            place = dice.randrange(len(rules))
            kept = [*rules[:place], *rules[place + 1 :]]
            if dice.random() < 0.5:
                kept.insert(dice.randrange(len(rules)), rules[place])
            return Chain(tuple(kept))
        case Map(declaration, elements):
            element = dice.choice(sorted(elements))
            value = OPPOSITE.get(elements[element])
            left = {k: v for k, v in elements.items() if k != element}
            turned = value is not None and dice.random() < 0.5
            return Map(declaration, {**left, element: value} if turned else left)
        case Set():
            raise AssertionError(content)


@pytest.mark.parametrize("of", Family, ids=lambda of: of.name)
@pytest.mark.parametrize("length", [6, 40])
def test_what_is_changed_behind_our_back_is_found(
    length: int, of: Family, firewall: Tunnels
) -> None:
    dice = Random(f"{length} {of}")
    loaded: Ruleset | None = None
    answers: Counter[type] = Counter()
    sent = 0
    for _ in range(LISTS):
        policy = lists.random_policy(dice, of, length)
        objects = lists.compiled(policy, of)
        firewall.apply(difference(loaded, objects))
        loaded = objects
        assert isinstance(answered(policy, of), Proved)
        for _ in range(MUTATIONS):
            firewall.apply(difference(loaded, after := mutated(dice, objects)))
            loaded = after
            answer = answered(policy, of)
            answers[type(answer)] += 1
            packets = [
                lists.random_packet(dice, dice.choice(policy.rules), of)
                for _ in range(20)
            ]
            if isinstance(answer, Refuted):
                example = packet_of(answer.packet, of)
                reached = answer.end is End.ACCEPT
                if answer.end is not End.RETURN:
                    assert lists.meant(policy, example) is not reached, policy
                    assert answer.way
                if can_be_sent(example, of):
                    sent += 1
                    was = firewall.accepted(lists.TABLES[of], [example])
                    assert was == [reached], example
            else:
                assert isinstance(answer, Proved)
                assert lists.misjudged(firewall, policy, packets) == []
    assert answers[Refuted] > LISTS * MUTATIONS / 4
    assert sent > answers[Refuted] / 2


WEB = Rule(Action.ACCEPT, Network(ip_network("198.51.100.0/24")), Proto.TCP)
POLICY = Policy((replace(WEB, ports=Ports(443, 443)),))


def test_a_proof_has_a_witness_and_says_what_it_assumes(firewall: Tunnels) -> None:
    firewall.apply(difference(None, lists.compiled(POLICY, Family.IPV4)))

    answer = answered(POLICY, Family.IPV4)

    assert isinstance(answer, Proved)
    assert answer.witness is not None
    assert packet_of(answer.witness, Family.IPV4) == Packet(
        ip_address("198.51.100.0"), 6, 443
    )
    assert len(answer.assumptions) == 2


def test_the_deciding_rule_is_named(firewall: Tunnels) -> None:
    firewall.apply(difference(None, lists.compiled(POLICY, Family.IPV4)))
    entry = chain_name(lists.CLIENTS[Family.IPV4])
    firewall.apply(f'insert rule ip qubes {entry} udp dport 53 accept comment "hole"')

    answer = answered(POLICY, Family.IPV4)

    assert isinstance(answer, Refuted)
    assert packet_of(answer.packet, Family.IPV4).port == 53
    assert [seen.comment for seen in answer.way] == ["hole"]


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param("limit rate 1/second accept", id="a limit"),
        pytest.param("numgen random mod 2 == 0 accept", id="chance"),
        pytest.param("meta cpu 0 accept", id="a key that is not modelled"),
    ],
)
def test_what_is_not_modelled_is_never_proved(rule: str, firewall: Tunnels) -> None:
    firewall.apply(difference(None, lists.compiled(POLICY, Family.IPV4)))
    entry = chain_name(lists.CLIENTS[Family.IPV4])
    firewall.apply(f"insert rule ip qubes {entry} tcp dport 22 {rule}")

    answer = answered(POLICY, Family.IPV4)

    assert isinstance(answer, Possible)
    assert packet_of(answer.packet, Family.IPV4).port == 22
    assert any(entry in doubt for doubt in answer.doubts)


def test_a_doubt_that_its_guard_makes_harmless_is_harmless(firewall: Tunnels) -> None:
    firewall.apply(difference(None, lists.compiled(POLICY, Family.IPV4)))
    entry = chain_name(lists.CLIENTS[Family.IPV4])
    firewall.apply(
        f"insert rule ip qubes {entry} ct original ip daddr 198.51.100.7"
        " tcp dport 443 limit rate 1/second accept"
    )

    assert isinstance(answered(POLICY, Family.IPV4), Proved)


def test_an_overrun_is_no_answer(firewall: Tunnels) -> None:
    dice = Random(1)
    long = lists.random_policy(dice, Family.IPV4, 400)
    firewall.apply(difference(None, lists.compiled(long, Family.IPV4)))
    overrun = answered(long, Family.IPV4, Budget(nodes=1000))

    assert isinstance(overrun, Unknown)
    assert "1000 branches" in overrun.reason


def test_a_missing_chain_is_no_answer() -> None:
    with apart():
        answer = answered(POLICY, Family.IPV4)

    assert answer == Unknown("there is no chain ip qubes q_10-137-0-5")

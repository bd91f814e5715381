# SPDX-License-Identifier: GPL-2.0-or-later
"""What a change of a list means is said in few boxes, and exactly."""

from collections.abc import Sequence
from random import Random

import pytest

from proof.difference import Box, difference, reached, shadowed
from rules.decide import Packet, decide
from rules.ground import Ground, ground
from rules.model import Action, Family, Policy
from rules.parse import parse_text
from tests.kernel import test_compiled_rules_equal_their_meaning as lists

VERSIONS = {4: Family.IPV4, 6: Family.IPV6}


def read(*texts: str, version: int = 4, default: Action = Action.DROP) -> Ground:
    policy = Policy(tuple(parse_text(text, now=0) for text in texts), default)
    return ground(policy, VERSIONS[version], {}, lists.RESOLVERS, 0)


def said(boxes: Sequence[Box]) -> list[str]:
    return [str(box) for box in boxes]


@pytest.mark.parametrize(
    ("before", "after", "gained", "lost"),
    [
        pytest.param(
            [],
            ["accept dst4=10.0.0.0/8 proto=tcp dstports=22"],
            ["10.0.0.0/8 tcp/22"],
            [],
            id="one rule more",
        ),
        pytest.param(
            ["accept"],
            ["drop proto=udp dstports=100-200", "accept"],
            [],
            ["anywhere udp/100-200"],
            id="a rule that drops, before the others",
        ),
        pytest.param(
            ["accept proto=tcp"],
            ["drop dst4=192.0.2.7", "accept proto=tcp"],
            [],
            ["192.0.2.7 tcp"],
            id="one host less",
        ),
        pytest.param(
            [],
            ["drop dst4=192.0.2.0/24", "accept proto=icmp icmptype=8"],
            ["anywhere but 192.0.2.0/24 icmp type 8"],
            [],
            id="all but a network",
        ),
        pytest.param(
            ["accept dst4=192.0.2.0/25", "accept dst4=192.0.2.128/25"],
            ["accept dst4=192.0.2.0/24"],
            [],
            [],
            id="the same in other words",
        ),
        pytest.param(
            ["accept dst4=192.0.2.1 proto=tcp"],
            ["accept dst4=192.0.2.2 proto=tcp"],
            ["192.0.2.2 tcp"],
            ["192.0.2.1 tcp"],
            id="another host",
        ),
    ],
)
def test_a_difference_is_a_few_boxes(
    before: list[str], after: list[str], gained: list[str], lost: list[str]
) -> None:
    found = difference(read(*before), read(*after), 4)

    assert said(found.gained) == gained
    assert said(found.lost) == lost


def test_each_ip_version_has_a_difference_of_its_own() -> None:
    rule = "accept dst6=2001:db8::/32 proto=udp dstports=53"

    assert said(difference(read(), read(rule), 4).gained) == []
    assert said(difference(read(version=6), read(rule, version=6), 6).gained) == [
        "2001:db8::/32 udp/53"
    ]


def test_all_that_a_list_accepts_can_be_told() -> None:
    web = "accept dst4=198.51.100.0/24 proto=tcp dstports=443"

    assert said(reached(read(web, "accept specialtarget=dns"), 4)) == [
        "10.139.1.1, 10.139.1.2 tcp/53, udp/53",
        "198.51.100.0/24 tcp/443",
    ]


def test_a_rule_that_others_cover_together_is_shadowed() -> None:
    found = read(
        "accept dst4=10.0.0.0/9",
        "accept dst4=10.128.0.0/9",
        "drop dst4=10.0.0.0/8",
        "accept proto=tcp",
        "drop proto=tcp dstports=22",
        "accept",
    )

    assert shadowed(found, 4) == (2, 4)


@pytest.mark.parametrize("of", Family, ids=lambda of: of.name)
def test_a_packet_in_no_box_is_decided_alike_by_both(of: Family) -> None:
    """Random lists: a packet is gained or lost exactly if `decide` says so."""
    dice = Random(f"difference {of}")
    version = 4 if of is Family.IPV4 else 6
    seen = set()
    for _ in range(30):
        policies = [lists.random_policy(dice, of, 6) for _ in range(2)]
        old, new = (
            ground(p, of, lists.NAMES, lists.RESOLVERS, lists.NOW) for p in policies
        )
        found = difference(old, new, version)
        for _ in range(40):
            rule = dice.choice(dice.choice(policies).rules)
            packet = lists.random_packet(dice, rule, of)
            was, now = (accepts(policy, packet) for policy in policies)
            change = (now and not was, was and not now)
            says = tuple(
                any(holds(box, packet) for box in boxes)
                for boxes in (found.gained, found.lost)
            )
            assert says == change, (policies, packet, found)
            seen.add(change)
    assert len(seen) == 3


def accepts(policy: Policy, packet: Packet) -> bool:
    known = policy, packet, lists.NAMES, lists.RESOLVERS, lists.NOW
    return decide(*known).action is Action.ACCEPT


def holds(box: Box, packet: Packet) -> bool:
    inside = any(packet.dst in network for network in box.networks)
    if inside is box.but:
        return False
    return any(carries(service, packet) for service in box.services)


NUMBERS = {"tcp": {6}, "udp": {17}, "icmp": {1, 58}, "everything": set(range(256))}


def carries(service: str, packet: Packet) -> bool:
    """Return whether a service in words is about a packet."""
    name, _, rest = service.partition("/")
    name, _, kind = name.partition(" type ")
    word, _, number = name.partition(" ")
    first, _, last = number.partition("-")
    protocols = NUMBERS.get(
        word, set(range(int(first or 0), int(last or first or 0) + 1))
    )
    if packet.proto not in protocols:
        return False
    wanted, value = (kind, packet.icmp_type) if kind else (rest, packet.port)
    if not wanted:
        return True
    low, _, high = wanted.partition("-")
    return value is not None and int(low) <= value <= int(high or low)

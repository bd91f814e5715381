# SPDX-License-Identifier: GPL-2.0-or-later
"""A rule that means nothing is named, and no other."""

from ipaddress import ip_address

import pytest

from controller.domains import Domain, Domains
from controller.idle import idle
from tests.controller.fake_world import policy

NAMES = {"www.example.com": frozenset({ip_address("192.0.2.80")})}
LISTS = {
    "one covers another": (
        ("accept dst4=10.0.0.0/8", "drop dst4=10.1.0.0/16", "accept"),
        ["rule 1 never decides: drop dst4=10.1.0.0/16"],
    ),
    "two cover a third together": (
        (
            *("drop proto=tcp dstports=1-99", "drop proto=tcp dstports=100-200"),
            *("accept proto=tcp dstports=50-150", "accept"),
        ),
        ["rule 2 never decides: accept proto=tcp dstports=50-150"],
    ),
    "what covers nothing": (
        ("drop dst4=10.0.0.0/8", "accept dst6=fd00::/8", "accept proto=udp"),
        [],
    ),
    "covered in IPv4 alone": (("accept dst4=0.0.0.0/0", "accept proto=tcp"), []),
    "a name": (
        ("drop dst4=192.0.2.0/24", "accept dsthost=www.example.com proto=tcp"),
        ["rule 1 never decides: accept dsthost=www.example.com proto=tcp"],
    ),
    "a name without address": (("drop", "accept dsthost=other.example.com"), []),
    "what has expired": (("drop", "accept expire=5"), []),
}


def domains(*lines: str) -> Domains:
    return Domains({"work": Domain("work", 1, policy=policy(*lines))})


@pytest.mark.parametrize(("lines", "said"), LISTS.values(), ids=LISTS)
def test_a_rule_that_never_decides_is_named(
    lines: tuple[str, ...], said: list[str]
) -> None:
    found = [*idle(Domains({}), domains(*lines), NAMES, 1000)]

    assert [change.text for change in found] == said


def test_of_a_list_that_is_as_it_was_nothing_is_said() -> None:
    same = domains("drop", "accept")

    assert [*idle(same, same, {}, 0)] == []

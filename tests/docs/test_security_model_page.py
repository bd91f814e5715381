# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of what the guard drops has one row for each of its drop rules."""

import re

from rules.guard import GUARD_TEXT, uplink_guard
from rules.pace import USUAL, pace
from tests.docs.pages import ROOT, prose

PAGE = ROOT / "docs/explanation/security-model.md"
RULE = re.compile(
    r'add rule (?P<table>\S+ \S+) (?P<chain>\S+) .*comment "(?P<name>.+)"'
)
ROW = re.compile(
    r"^\| `(?P<name>[a-z-]+)` \| (?P<table>[a-z]+) (?P<chain>[a-z-]+) \|", re.MULTILINE
)


def dropped() -> set[tuple[str, str, str]]:
    """Return name, family and chain of every rule of the guard that drops."""
    text = (GUARD_TEXT + pace(USUAL) + uplink_guard("eth0")).replace("\\\n", "")
    return {
        (found["name"], found["table"].partition(" ")[0], found["chain"])
        for line in text.splitlines()
        if (found := RULE.match(line))
    }


def test_the_page_names_every_rule_of_the_guard_that_drops() -> None:
    rows = [
        (row["name"], row["table"], row["chain"].replace("egress", "egress-eth0"))
        for row in ROW.finditer(prose(PAGE))
    ]

    assert set(rows) == dropped()
    assert len(rows) == len(set(rows))


def test_every_rule_of_the_guard_that_drops_has_a_name() -> None:
    text = (GUARD_TEXT + pace(USUAL) + uplink_guard("eth0")).replace("\\\n", "")
    drops = [
        x for x in text.splitlines() if x.startswith("add rule") and "counter" in x
    ]

    assert [rule for rule in drops if RULE.match(rule) is None] == []

# SPDX-License-Identifier: GPL-2.0-or-later
"""A step that is refused leaves nothing that a later one could stumble over."""

import pytest

from agent.ports import FirewallError
from agent.stepwise import HalfDoneError, load
from rules.objects import IP, Chain, Key, Map, Ruleset
from tests.agent.fakes import FakeFirewall

WAYS, OLD_CHAIN, NEW_CHAIN = (Key(IP, name) for name in ("ways", "q_old", "q_new"))
KIND = "typeof iif . ip saddr : verdict;"
OLD: Ruleset = {
    WAYS: Map(KIND, {"5 . 10.0.0.5": "goto q_old"}),
    OLD_CHAIN: Chain(("accept",)),
}
NEW: Ruleset = {
    WAYS: Map(KIND, {"6 . 10.0.0.6": "goto q_new"}),
    NEW_CHAIN: Chain(("drop",)),
}


@pytest.fixture
def firewall() -> FakeFirewall:
    made = FakeFirewall([])
    made.load(f"add table {IP}\n")
    load(made, {}, OLD)
    made.loads.clear()
    return made


def test_what_is_wanted_is_there_and_nothing_else(firewall: FakeFirewall) -> None:
    assert load(firewall, OLD, NEW)

    assert len(firewall.loads) == 3
    assert firewall.elements(IP, "ways") == {"6 . 10.0.0.6": "goto q_new"}
    assert firewall.client_chains() == {"q_new": ["drop"]}
    assert not load(firewall, NEW, dict(NEW))


def test_refused_elements_take_their_chains_with_them(firewall: FakeFirewall) -> None:
    firewall.refuses = lambda script: "element" in script

    with pytest.raises(FirewallError):
        load(firewall, OLD, NEW)

    assert firewall.elements(IP, "ways") == {"5 . 10.0.0.5": "goto q_old"}
    assert firewall.client_chains() == {"q_old": ["accept"]}


@pytest.mark.parametrize("also", ["element", "nothing"])
def test_a_chain_that_cannot_be_taken_away_ends_the_agent(
    firewall: FakeFirewall, also: str
) -> None:
    """Filled again under its old name it would begin with its old rules."""
    firewall.refuses = lambda script: "delete chain" in script or also in script

    with pytest.raises(HalfDoneError):
        load(firewall, OLD, NEW)

# SPDX-License-Identifier: GPL-2.0-or-later
"""What is asked of a TorVM reaches its agent with a number, and so does the answer."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from controller.admin import Answer, Argument, Exit, Failure, Request
from controller.databases import Status
from controller.domains import Domain, Domains, LabUplink, UnknownDomainError
from controller.output import tor as shown
from controller.personality import Personality
from controller.steps import Reply, Until
from controller.tor import tor

DOMAINS = Domains(
    {
        domain.name: domain
        for domain in (
            Domain("net", 1, personality=Personality.NETVM, uplink=LabUplink()),
            Domain("tor", 2, personality=Personality.TOR, netvm="net"),
            Domain("fw", 3, personality=Personality.FIREWALL, netvm="tor"),
            Domain("anon", 4, netvm="tor"),
            Domain("anon2", 5, netvm="tor"),
            Domain("behind", 6, netvm="fw"),
            Domain("plain", 7, netvm="net"),
        )
    }
)
IDENTITY = "new-identity/10.137.0.4"


@dataclass
class Agents:
    """The databases and the agent of ``tor``, which answers when it is written to."""

    state: str = "up"
    trouble_of_tor: str = ""
    asks: dict[str, dict[str, str]] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    answers: Callable[[dict[str, str]], dict[str, str]] = lambda _: {}
    domains: Domains = DOMAINS

    @property
    def databases(self) -> "Agents":
        return self

    def refill(self) -> None:
        self.said |= self.answers(self.asks.get("tor", {}))

    def status(self, _name: str) -> Status:
        return Status(1, "0" * 16, self.state, 1, 0)

    def trouble(self, _name: str) -> str:
        return self.trouble_of_tor

    def report(self, _name: str) -> dict[str, str]:
        return self.said


def asked(agents: Agents, action: str, **given: Argument) -> Reply:
    """Carry the verb out; what is waited for must be there, and was said."""
    arguments = {"action": action, "domain": None, "addresses": False, **given}
    work = tor(agents, Request("tor", arguments))  # type: ignore[arg-type]
    said = False
    while True:
        try:
            step = next(work)
        except StopIteration as end:
            reply: Reply = end.value
            return reply
        if isinstance(step, Until):
            assert said
            assert step.done(), step.what
        said = True


def obeys(asks: dict[str, str]) -> dict[str, str]:
    return {path: serial for path, serial in asks.items() if path.startswith("new-")}


def tells(asks: dict[str, str]) -> dict[str, str]:
    place = "=203.0.113.11" if asks["circuits"].endswith(" addresses") else ""
    return {
        "circuits/10.137.0.4/7": f"de:one{place} fr:two",
        "circuits/10.137.0.5/9": f"nl:three{place} fr:two",
        "circuits-serial": asks["circuits"].partition(" ")[0],
    }


def test_a_domain_gets_another_identity() -> None:
    agents = Agents(answers=obeys)
    reply = asked(agents, "new-identity", domain="anon")

    assert reply == Answer({"domain": "anon", "client": "anon", "gateway": "tor"})
    assert agents.asks == {"tor": {IDENTITY: "1"}}
    assert isinstance(reply, Answer)
    assert shown(reply.data) == ["anon: other circuits from now on"]


def test_each_question_has_a_number_of_its_own() -> None:
    """So the answer to the one before is none."""
    agents = Agents(answers=obeys)
    for _ in range(3):
        asked(agents, "new-identity", domain="anon")

    assert agents.asks["tor"][IDENTITY] == "3"


def test_who_is_behind_another_gateway_shares_its_identity() -> None:
    reply = asked(Agents(answers=obeys), "new-identity", domain="behind")

    assert reply == Answer({"domain": "behind", "client": "fw", "gateway": "tor"})
    assert isinstance(reply, Answer)
    assert shown(reply.data) == ["fw (and all behind it): other circuits from now on"]


@pytest.mark.parametrize("domain", ["plain", "net", "tor"])
def test_without_tor_on_its_way_there_is_none(domain: str) -> None:
    reply = asked(Agents(), "new-identity", domain=domain)

    assert isinstance(reply, Failure)
    assert reply.exit_code is Exit.USAGE
    assert "no domain on its way" in reply.text


def test_a_domain_that_is_not_there_is_a_mistake() -> None:
    with pytest.raises(UnknownDomainError):
        asked(Agents(), "new-identity", domain="nobody")


def test_an_identity_is_somebodys() -> None:
    reply = asked(Agents(), "new-identity")

    assert isinstance(reply, Failure)
    assert reply.exit_code is Exit.USAGE


@pytest.mark.parametrize("action", ["new-identity", "circuits"])
def test_while_tor_is_not_up_its_trouble_is_the_answer(action: str) -> None:
    agents = Agents(state="connecting", trouble_of_tor="the clock is 3 h ahead")
    reply = asked(agents, action, domain="anon")

    assert reply == Failure(Exit.NOT_ENFORCED, "tor: the clock is 3 h ahead")
    assert agents.asks == {}


def test_everybodys_circuits_are_shown_by_name() -> None:
    reply = asked(Agents(answers=tells), "circuits")

    assert isinstance(reply, Answer)
    assert [line.split() for line in shown(reply.data)] == [
        ["DOMAIN", "GATEWAY", "CIRCUIT", "RELAYS"],
        ["anon", "tor", "7", "de:one", "fr:two"],
        ["anon2", "tor", "9", "nl:three", "fr:two"],
    ]


def test_it_is_said_if_some_may_not_be_known() -> None:
    """The control is the test before: nothing is said there."""

    def misses(asks: dict[str, str]) -> dict[str, str]:
        return tells(asks) | {"streams-missed": "3"}

    reply = asked(Agents(answers=misses), "circuits")

    assert isinstance(reply, Answer)
    assert shown(reply.data)[-1] == "tor: perhaps not all, a client hides some"


def test_so_are_those_of_one() -> None:
    reply = asked(Agents(answers=tells), "circuits", domain="anon2")

    assert isinstance(reply, Answer)
    assert [line.split()[0] for line in shown(reply.data)] == ["DOMAIN", "anon2"]


@pytest.mark.parametrize("addresses", [False, True])
def test_addresses_are_told_to_who_asks_for_them(*, addresses: bool) -> None:
    reply = asked(Agents(answers=tells), "circuits", addresses=addresses)

    assert isinstance(reply, Answer)
    assert ("203.0.113.11" in "\n".join(shown(reply.data))) is addresses


def test_a_word_that_is_no_action_is_a_mistake() -> None:
    reply = asked(Agents(), "stop")

    assert isinstance(reply, Failure)
    assert reply.exit_code is Exit.USAGE

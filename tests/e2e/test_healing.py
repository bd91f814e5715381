# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever dies comes back, and its clients flow again by themselves."""

import json
import re

import pytest

from controller import namespaces
from tests.e2e.machine import (
    HOME,
    HTTP,
    HTTPS,
    RUNTIME,
    WEB4,
    WEB6,
    Machine,
    becomes,
    end,
    stilled,
    until,
)

pytestmark = pytest.mark.kernel

AGENTS = ("sys-net", "sys-firewall", "sys-firewall2")
COUNTED_OF_A_VIF = re.compile(r"\s*elements = \{[^}]*limit rate[^}]*\}")


def troubles(machine: Machine) -> list[str]:
    """Return what a domain has not that it should have, or has that it should not."""
    wanted = [
        (name, address, HTTPS, True)
        for name in ("work", "personal", "untrusted")
        for address in (WEB4, WEB6)
    ]
    wanted += [("work", WEB4, HTTP, False), ("personal", WEB4, HTTP, True)]
    found = [
        f"{name} {address} {port}"
        for name, address, port, reached in wanted
        if machine.reaches(name, address, port) is not reached
    ]
    if machine.answers("work", "www.example.com") != {WEB4}:
        found.append("no names")
    return found


def problems(machine: Machine) -> dict[str, object]:
    rows = machine.status().items()
    return {name: row["problem"] for name, row in rows if row["problem"]}


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_that_is_killed_comes_back_and_no_flow_is_lost(
    home: Machine, name: str
) -> None:
    streams = [home.stream(x) for x in ("personal", "untrusted")]
    before = home.agent(name)
    end(before)
    assert troubles(home) == []  # the rules stay in force meanwhile
    assert until(lambda: home.agent(name)) != before
    becomes(lambda: problems(home), {})
    assert troubles(home) == []
    assert all(stream.lives() for stream in streams)
    home.does("firewall", "work", "add", "accept", f"dst4={WEB4}", "tcp", "80-80")
    assert home.reaches("work", WEB4)


def test_an_agent_that_dies_again_and_again_is_shown_with_the_reason(
    home: Machine,
) -> None:

    def shown() -> bool:
        # It may be back before somebody has looked, and then it dies once more.
        end(home.agent("sys-firewall"))
        return "SIGKILL" in str(home.status()["sys-firewall"]["problem"])

    for _ in range(3):
        until(shown)
    becomes(lambda: problems(home), {})
    assert troubles(home) == []


@pytest.mark.parametrize("name", AGENTS)
def test_restart_heals_every_client(home: Machine, name: str) -> None:
    before = home.agent(name)
    home.does("restart", name)
    assert home.agent(name) != before
    assert troubles(home) == []
    assert problems(home) == {}


def test_a_client_restarts_too(home: Machine) -> None:
    home.does("restart", "work")
    assert troubles(home) == []


def test_all_at_once_come_back_in_order(home: Machine) -> None:
    for name in AGENTS:
        end(home.agent(name))
    becomes(lambda: problems(home), {})
    assert troubles(home) == []


def test_a_netvm_whose_namespace_is_destroyed_is_made_anew(home: Machine) -> None:
    net = home.net("sys-net")
    namespaces.kill_all(net)
    namespaces.remove(net)
    until(lambda: home.ravelin("restart", "sys-net").status == 0)
    assert troubles(home) == []


def test_a_client_is_started_before_the_agent_of_its_netvm_is_ready(
    home: Machine,
) -> None:
    end(home.agent("sys-firewall"))
    text = f'{HOME}\n[domains.late]\nlabel = "gray"\nnetvm = "sys-firewall"\n'
    home.policy.write_text(text)
    home.does("apply")
    assert home.reaches("late", WEB4)
    assert troubles(home) == []


def test_the_uplink_may_go_and_come_back(home: Machine) -> None:
    home.tool("sys-net", "ip", "link", "set", "eth0", "down")
    until(lambda: not home.reaches("personal", WEB4))
    home.tool("sys-net", "ip", "link", "set", "eth0", "up")
    # What DHCP and router advertisements do elsewhere; the kernel forgot it.
    for line in (
        "ip address add 2001:db8:1::2/64 dev eth0 nodad",
        "ip address add fe80::2/64 dev eth0 nodad",
        "ip route add default via 192.0.2.1 dev eth0 onlink",
        "ip route add default via 2001:db8:1::1 dev eth0 onlink",
    ):
        home.tool("sys-net", *line.split())
    assert until(lambda: home.reaches("personal", WEB4))
    becomes(lambda: troubles(home), [])


@pytest.mark.parametrize("name", ["sys-firewall", "sys-firewall2"])
def test_an_uplink_of_ours_that_comes_back_is_configured_anew(
    home: Machine, name: str
) -> None:
    """The kernel forgets addresses and routes; nobody else gives them back."""
    home.tool(name, "ip", "link", "set", "eth0", "down")
    until(lambda: troubles(home) != [])
    home.tool(name, "ip", "link", "set", "eth0", "up")
    becomes(lambda: troubles(home), [])


def test_status_follows(home: Machine) -> None:
    end(home.agent("sys-net"))
    rows = json.loads(home.ravelin("--json", "status").out)["domains"]
    assert {row["name"] for row in rows} == set(home.status())
    becomes(lambda: problems(home), {})
    assert (RUNTIME / "log" / "sys-net.log.1").exists()


@pytest.mark.parametrize(
    "tampering",
    [
        pytest.param("delete table inet ravelin-guard", id="the guard is deleted"),
        pytest.param("delete table netdev ravelin-guard", id="an uplink's guard is"),
        pytest.param("flush chain ip qubes forward", id="the rules are flushed"),
        pytest.param("flush map ip qubes clients", id="no client is dispatched"),
        pytest.param("insert rule ip6 qubes forward accept", id="all is let pass"),
        pytest.param("flush ruleset", id="everything is gone"),
    ],
)
def test_rules_that_somebody_else_changed_are_put_back(
    home: Machine, tampering: str
) -> None:
    """L9, in each gateway, all of them at once.

    The limit: until the agent looks, every two seconds, they are changed.
    """

    def rules(name: str) -> str:
        # Counters go on, as does what is counted of a vif in elements with a limit of
        # their own; everything else must be as it was.
        listed = home.tool(name, "nft", "--stateless", "list", "ruleset")
        return "\n".join(sorted(COUNTED_OF_A_VIF.sub("", listed).splitlines()))

    before = {name: rules(name) for name in AGENTS}

    for name in AGENTS:
        # Held still meanwhile, or it may be quicker than our own look.
        with stilled(home.agent(name)):
            home.tool(name, "nft", tampering)
            assert rules(name) != before[name]

    for name in AGENTS:
        becomes(lambda name=name: rules(name), before[name])
    assert troubles(home) == []

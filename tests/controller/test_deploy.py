# SPDX-License-Identifier: GPL-2.0-or-later
"""Links are cut first and laid last, and a failure is no dead end."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from controller import supervise
from controller.deploy import MAX_SERIAL
from controller.domains import (
    Domain,
    Domains,
    HostUplink,
    Label,
    LabUplink,
    Personality,
)
from controller.launches import UIDS
from controller.ports import Link, PlatformError
from controller.steps import Until
from tests.controller.fake_world import Manners, World, a_world, home, policy

NOTHING = Domains({})
FW2 = Domain("fw2", 3, personality=Personality.FIREWALL, netvm="net")
UP = [
    *("start net", "uplink net", "start fw", "start work"),
    *("agent net", "agent fw"),
    *("attach fw to net", "attach work to fw"),
]
DOWN = [
    *("detach fw", "detach work"),
    *("stop work", "stop fw", "no uplink net", "stop net"),
]
WORK = home().by_name["work"]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Return a world where agents that fail are started again at once."""
    monkeypatch.setattr(supervise, "FIRST_DELAY", 0.001)
    with a_world(tmp_path) as found:
        yield found


CHANGES = {
    "up": (NOTHING, home(), UP),
    "down": (home(), NOTHING, DOWN),
    "nothing": (home(), home(), []),
    "rules": (home(), home(work=replace(WORK, policy=policy("drop"))), []),
    "another netvm": (
        home(FW2),
        home(FW2, work=replace(WORK, netvm="fw2")),
        ["detach work", "attach work to fw2"],
    ),
    "no netvm": (home(), home(work=replace(WORK, netvm=None)), ["detach work"]),
    "a domain removed": (home(), home(work=None), ["detach work", "stop work"]),
    "a firewall removed": (
        home(FW2),
        home(FW2, work=replace(WORK, netvm="net"), fw=None),
        ["detach work", "detach fw", "stop fw", "attach work to net"],
    ),
    "a personality taken away": (
        home(FW2),
        home(replace(FW2, personality=None)),
        ["detach fw2", "stop fw2", "start fw2", "attach fw2 to net"],
    ),
    "a personality given": (
        home(Domain("other", 7, netvm="net")),
        home(Domain("other", 7, netvm="net", personality=Personality.FIREWALL)),
        [
            *("detach other", "stop other"),
            *("start other", "agent other", "attach other to net"),
        ],
    ),
    "no IPv6": (
        home(),
        home(work=replace(WORK, ipv6=False)),
        ["detach work", "attach work to fw"],
    ),
    "no IPv6 on the way": (
        home(),
        home(fw=replace(home().by_name["fw"], ipv6=False)),
        ["detach fw", "detach work", "attach fw to net", "attach work to fw"],
    ),
    "a label": (home(), home(work=replace(WORK, label=Label.BLUE)), []),
    "a disposable": (
        home(),
        home(replace(WORK, name="disp9", qid=9, disposable=True)),
        ["start disp9", "attach disp9 to fw"],
    ),
}


@pytest.mark.parametrize(("before", "after", "told"), CHANGES.values(), ids=CHANGES)
def test_only_what_changed_is_touched_and_in_a_safe_order(
    world: World, before: Domains, after: Domains, told: list[str]
) -> None:
    world.become(before)

    assert [sorted(part) for part in parts(world.become(after))] == [
        sorted(part) for part in parts(told)
    ]
    assert world.platform.there == set(after.by_name)
    linked = {d.name: d.netvm for d in after if d.netvm is not None}
    assert {c: k.provider for c, k in world.platform.cables.items()} == linked
    assert not world.deployment.waiting()
    assert world.become(after) == []


def parts(told: list[str]) -> list[list[str]]:
    """Return what is cut, what is done in between, and what is laid."""
    cut = [t for t in told if t.startswith("detach")]
    laid = [t for t in told if t.startswith("attach")]
    rest = [t for t in told if t not in cut and t not in laid]
    assert told == cut + rest + laid
    return [cut, rest, laid]


def test_providers_start_before_their_clients_and_stop_after_them(
    world: World,
) -> None:
    assert world.become(home()) == UP
    assert world.become(NOTHING) == DOWN


def test_restart_makes_one_domain_anew_and_links_its_clients_again(
    world: World,
) -> None:
    world.become(home())

    assert world.become(home(), renew=frozenset({"fw"})) == [
        *("detach fw", "detach work", "stop fw"),
        *("start fw", "agent fw", "attach fw to net", "attach work to fw"),
    ]


def test_rules_stand_before_the_link_they_are_for(world: World) -> None:
    seen: dict[str, bytes] = {}

    def look(link: Link) -> None:
        if link.client == "work":
            seen.update(world.contents("fw"))

    world.platform.on_attach = look
    world.become(home())

    assert seen["/qubes-firewall/10.137.0.5/0000"] == b"action=accept proto=tcp"
    assert seen["/qubes-firewall/10.137.0.5/policy"] == b"drop"
    assert seen["/ravelin/vif/vif2.0"].startswith(b"mac=00:16:3e:5e:6c:00 ip=10.137")


def test_a_link_is_laid_only_to_an_agent_that_is_ready(world: World) -> None:
    world.become(home())
    agents = world.steps.index("wait for the agents to be ready")

    assert agents < world.steps.index("linking fw to net")
    assert world.steps[-1] == "wait for the agents to enforce the rules"


def test_stricter_rules_do_not_wait_for_a_domain_that_cannot_start(
    world: World,
) -> None:
    world.become(home())
    world.platform.fails = {"start other"}
    stricter = replace(WORK, policy=policy("drop"))

    with pytest.raises(PlatformError):
        world.become(home(Domain("other", 7), work=stricter))

    rule = world.contents("fw")["/qubes-firewall/10.137.0.5/0000"]
    assert rule == b"action=drop"


AFTER = home(FW2, Domain("other", 7, netvm="fw2"), work=replace(WORK, netvm="fw2"))


@pytest.mark.parametrize("broken", UP)
def test_up_goes_on_where_the_platform_failed(world: World, broken: str) -> None:
    world.platform.fails = {broken}
    if broken.startswith("agent"):
        world.become(home())  # it is started again by the supervisor
    else:
        with pytest.raises(PlatformError, match=broken):
            world.become(home())
        world.become(home())

    assert world.platform.there == {"net", "fw", "work"}
    assert world.platform.cables.keys() == {"fw", "work"}
    assert {s.domain for s in world.platform.starts} == {"net", "fw"}
    assert not world.deployment.waiting()


@pytest.mark.parametrize("broken", [*UP, *DOWN])
def test_down_leaves_nothing_after_any_failure(world: World, broken: str) -> None:
    world.platform.fails = {broken}
    try:
        world.become(home())
        world.become(NOTHING)
    except PlatformError:
        world.become(NOTHING)

    assert world.platform.there == set()
    assert world.platform.cables == {}
    assert world.databases.names() == ()
    assert world.supervisor.conditions() == {}
    assert not any((world.deployment.serials, world.deployment.notes))


CHANGED = ["detach work", "start fw2", "start other", "attach work to fw2"]


@pytest.mark.parametrize("broken", CHANGED)
@pytest.mark.parametrize("then", [home(), AFTER], ids=["back", "on"])
def test_a_change_goes_on_or_back_where_the_platform_failed(
    world: World, broken: str, then: Domains
) -> None:
    world.become(home())
    world.platform.fails = {broken}

    with pytest.raises(PlatformError, match=broken):
        world.become(AFTER)
    world.become(then)

    assert world.platform.there == set(then.by_name)
    linked = {d.name: d.netvm for d in then if d.netvm is not None}
    assert {c: k.provider for c, k in world.platform.cables.items()} == linked
    assert world.become(then) == []


def test_a_vif_that_was_not_laid_is_not_in_any_qubesdb(world: World) -> None:
    world.platform.fails = {"attach work to fw"}

    with pytest.raises(PlatformError):
        world.become(home())

    assert not [k for k in world.contents("fw") if k.startswith("/ravelin/vif/")]
    assert world.deployment.serials.keys() == {"fw"}


def test_an_agent_that_keeps_failing_is_named_and_holds_up_nothing_else(
    world: World,
) -> None:
    world.platform.manners["fw2"] = Manners(ends="no kernel")

    with pytest.raises(PlatformError, match="fw2: exit code 1: no kernel"):
        world.become(home(FW2))
    assert world.platform.cables.keys() == {"fw", "fw2", "work"}

    # Nobody waits for it who has nothing to do with it.
    disposable = replace(WORK, name="disp9", qid=9, disposable=True)
    told = world.become(home(FW2, disposable))
    assert {"start disp9", "attach disp9 to fw"} == {*told} - {"agent fw2"}
    world.platform.manners["fw2"].ends = ""
    world.until(lambda: not world.deployment.waiting())
    assert world.become(home(FW2, disposable)) == []


def test_an_agent_that_never_gets_ready_is_waited_for_in_vain(world: World) -> None:
    world.platform.manners["net"] = Manners(silent=True)
    steps = world.deployment.become(home())
    until = next(step for step in steps if isinstance(step, Until))

    with pytest.raises(TimeoutError):
        steps.throw(TimeoutError(until.what))  # type: ignore[attr-defined]
    assert world.deployment.waiting()["net"] == "starting"
    assert world.platform.cables == {}


def test_links_do_not_wait_for_names_and_the_end_does(world: World) -> None:
    manners = world.platform.manners["fw"] = Manners(waiting=2)
    waits: list[str] = []
    for step in world.deployment.become(home()):
        if isinstance(step, Until):
            waits.append(step.what)
            if len(waits) == 1:
                world.until(step.done)
                continue
            world.until(lambda: "resolving" in world.deployment.waiting().get("fw", ""))
            assert not step.done()
            manners.waiting = 0
            world.deployment.domains = home(work=replace(WORK, policy=policy("drop")))
            world.deployment.refill()
            world.until(step.done)

    assert world.platform.cables.keys() == {"fw", "work"}
    assert len(waits) == 2


def test_every_agent_has_a_uid_of_its_own(world: World) -> None:
    far = Domain("far", 4001, personality=Personality.FIREWALL, netvm="net")
    near = Domain("near", 1 + 4000 * 2, personality=Personality.FIREWALL, netvm="net")
    world.become(home(far, near))

    uids = [start.uid for start in world.platform.starts]
    assert len(set(uids)) == len(uids) == 4
    assert set(uids) <= set(UIDS)


def test_no_agent_is_who_runs_on_the_machine_already(world: World) -> None:
    world.platform.somebody = {UIDS[0], UIDS[2]}
    world.become(home())

    assert [start.uid for start in world.platform.starts] == [UIDS[1], UIDS[3]]


def test_only_a_netvm_has_the_resolvers_of_the_outside(world: World) -> None:
    world.become(home())

    found = {start.domain: start.resolvers for start in world.platform.starts}
    assert found == {"net": ("192.0.2.53",), "fw": ()}


def test_what_is_to_be_known_of_a_shared_connection_is_what_it_is_now(
    world: World,
) -> None:
    world.uplink.notes = ("no resolver",)
    world.become(home(net=replace(home().named("net"), uplink=HostUplink())))
    assert world.deployment.notes["net"] == ("no resolver",)

    world.uplink.notes = ()
    world.deployment.follow()

    assert not any(world.deployment.notes.values())


def test_serials_start_again_after_the_last_and_none_is_used_twice(
    world: World,
) -> None:
    world.become(home())
    world.deployment.next_serial = MAX_SERIAL
    world.become(home(Domain("a", 7, netvm="fw"), Domain("b", 8, netvm="fw")))

    assert world.deployment.serials == {"fw": 1, "work": 2, "a": MAX_SERIAL, "b": 3}


def test_a_client_with_an_agent_is_configured_by_it_and_no_other(
    world: World,
) -> None:
    world.become(home())

    assert world.platform.cables["fw"].pairs == ()
    pairs = world.platform.cables["work"].pairs
    assert [(str(p.own), str(p.gateway)) for p in pairs] == [
        ("10.137.0.5", "10.137.0.2"),
        ("fd09:24ef:4179::a89:5", "fd09:24ef:4179::a89:2"),
    ]


def test_what_somebody_ended_is_known_and_made_anew(world: World) -> None:
    world.become(home())
    assert world.deployment.vanished() == frozenset()

    world.platform.vanish("net")

    assert world.deployment.vanished() == {"net"}
    world.become(home(), renew=world.deployment.vanished())
    assert world.platform.there == {"net", "fw", "work"}
    assert world.platform.cables.keys() == {"fw", "work"}


def test_nothing_of_a_disposable_stays(world: World) -> None:
    world.become(home())
    before = world.contents("fw")
    disposable = replace(WORK, name="disp9", qid=9, disposable=True)

    world.become(home(disposable))
    assert "/qubes-firewall/10.138.0.9/policy" in world.contents("fw")
    world.become(home())

    def same() -> bool:
        now = world.contents("fw")
        ours = {k: v for k, v in now.items() if "handled" not in k}
        return ours == {k: v for k, v in before.items() if "handled" not in k}

    world.until(same)
    assert "disp9" not in {*world.platform.there, *world.platform.cables}


def test_the_uplink_of_a_netvm_changes_with_the_netvm_made_anew(world: World) -> None:
    world.become(home())
    net = replace(home().by_name["net"], uplink=HostUplink())

    told = world.become(home(net=net))

    assert told == [
        *("detach fw", "no uplink net", "stop net"),
        *("start net", "uplink net", "agent net", "attach fw to net"),
    ]
    assert home().by_name["net"].uplink == LabUplink()

# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon's loop: everything at its time, and nothing in between."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from controller import daemon as daemon_module
from controller import deploy, enforce, handle, supervise
from controller.admin import Answer, Argument, Failure, Request, encode
from controller.client import ask
from controller.daemon import Daemon
from controller.handle import Handler
from controller.journal import Journal
from controller.numbers import Numbers
from controller.output import rows
from controller.trial import Trial
from tests.controller.fake_world import (
    DEADLINE,
    Blind,
    FakeProver,
    Manners,
    World,
    a_world,
)

POLICY = """\
[domains.net]
personality = "netvm"
uplink = "lab"

[domains.fw]
personality = "firewall"
netvm = "net"

[domains.work]
netvm = "fw"
firewall = ["accept proto=tcp", "accept proto=icmp expire=EXPIRE"]
"""


@dataclass
class Clock:
    """The time of day, and how far it has been put forward."""

    ahead: float = 0.0

    def time(self) -> float:
        return time.time() + self.ahead

    @property
    def module(self) -> SimpleNamespace:
        return SimpleNamespace(time=self.time, monotonic=time.monotonic)


@dataclass
class House:
    """A daemon that runs in this thread, and people in another one."""

    world: World
    clock: Clock
    expire: int
    handler: Handler = field(init=False)
    holders: list[socket.socket] = field(default_factory=list)
    looks: list[None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.file = self.world.runtime / "home.toml"
        self.file.write_text(POLICY.replace("EXPIRE", str(self.expire)))
        self.path = self.world.runtime / "admin.sock"

    def live(self, people: Callable[[], None], *, down: bool = True) -> None:
        """Be the daemon while ``people`` do something, until it ends."""
        runtime = self.world.runtime
        self.handler = Handler(
            self.world.deployment,
            Numbers(runtime),
            Journal(),
            runtime,
            lambda _: None,
            Trial(runtime),
            FakeProver(),
        )
        daemon = Daemon(
            self.world.selector,
            self.handler,
            self.world.supervisor,
            self.path,
            look=lambda: self.looks.append(None),
            watch=Blind(),
        )
        failed: list[BaseException] = []

        def act() -> None:
            try:
                people()
            except BaseException as error:  # noqa: BLE001 (it is raised again below)
                failed.append(error)
                self.ask("down")
            if down and not failed:
                self.ask("down")

        thread = threading.Thread(target=act)
        thread.start()
        daemon.run()
        thread.join(DEADLINE)
        for holder in self.holders:
            holder.close()
        if failed:
            raise failed[0]
        assert not thread.is_alive()
        assert not self.path.exists()

    def ask(self, verb: str, **given: Argument) -> Answer | Failure:
        return ask(self.path, Request(verb, given), lambda _: None)

    def data(self, verb: str, **given: Argument) -> dict[str, object]:
        reply = self.ask(verb, **given)
        assert isinstance(reply, Answer), reply
        assert isinstance(reply.data, dict)
        return reply.data

    def up(self) -> None:
        self.data("up", policy=str(self.file))

    def disposable(self) -> str:
        words = {"domain": "work", "command": ("true",), "disposable": True}
        return str(self.data("run", **words)["domain"])

    def hold(self, name: str) -> socket.socket:
        holder = socket.socket(socket.AF_UNIX)
        holder.connect(str(self.path))
        holder.sendall(encode(Request("hold", {"domain": name})))
        self.holders.append(holder)
        return holder

    def texts(self) -> list[str]:
        found = rows(json.loads(json.dumps(self.data("log"))), "events")
        return [f"{event['domain']}: {event['text']}" for event in found]

    def domains(self) -> set[str]:
        found = rows(json.loads(json.dumps(self.data("status"))), "domains")
        return {str(row["name"]) for row in found}

    def until(self, done: Callable[[], bool]) -> None:
        """Ask again until something is so."""
        deadline = time.monotonic() + DEADLINE
        while not done():
            assert time.monotonic() < deadline, self.handler.journal.data()

    def icmp(self) -> bool:
        """Whether the rule that expires stands in the firewall's QubesDB."""
        return b"action=accept proto=icmp" in self.world.contents("fw").values()


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    clock = Clock()
    for module in (daemon_module, deploy, enforce, handle):
        monkeypatch.setattr(module, "time", clock.module)
    monkeypatch.setattr(supervise, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(daemon_module, "LOOK_EVERY", 0.0)
    with a_world(tmp_path) as world:
        yield House(world, clock, int(time.time()) + 3600)


def test_up_and_down_leave_nothing(house: House) -> None:
    def people() -> None:
        house.up()
        assert house.domains() == {"net", "fw", "work"}

    house.live(people)

    assert house.world.platform.there == set()
    assert house.world.databases.names() == ()


def test_who_only_looks_is_answered_while_another_waits(house: House) -> None:
    house.world.platform.manners["fw"] = Manners(silent=True)

    def people() -> None:
        up = threading.Thread(target=lambda: house.ask("up", policy=str(house.file)))
        up.start()
        house.until(lambda: "fw" in house.domains())
        reply = house.ask("down")  # which does not wait for what never comes
        assert isinstance(reply, Answer)
        up.join(DEADLINE)

    house.live(people, down=False)

    assert house.world.platform.there == set()


def test_two_requests_at_once_are_carried_out_one_after_the_other(
    house: House,
) -> None:
    def people() -> None:
        house.up()
        add = [
            threading.Thread(
                target=house.data,
                args=("firewall",),
                kwargs={
                    "domain": "work",
                    "action": "add",
                    "rule": ("drop", f"dstports={port}", "proto=tcp"),
                    "number": None,
                },
            )
            for port in range(1, 6)
        ]
        for each in add:
            each.start()
        for each in add:
            each.join(DEADLINE)
        found = rows(
            json.loads(
                json.dumps(
                    house.data(
                        "firewall", domain="work", action="list", rule=(), number=None
                    )
                )
            ),
            "rules",
        )
        assert len(found) == 7

    house.live(people)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_takes_everything_down(house: House, number: int) -> None:
    before = signal.getsignal(number)

    def people() -> None:
        house.up()
        os.kill(os.getpid(), number)

    house.live(people, down=False)

    assert house.world.platform.there == set()
    assert signal.getsignal(number) is before


def test_a_signal_does_not_wait_for_an_agent(house: House) -> None:
    house.world.platform.manners["net"] = Manners(silent=True)

    def people() -> None:
        with socket.socket(socket.AF_UNIX) as up:
            up.connect(str(house.path))
            up.sendall(encode(Request("up", {"policy": str(house.file)})))
            house.until(lambda: "net" in house.domains())
        os.kill(os.getpid(), signal.SIGTERM)

    house.live(people, down=False)

    assert house.world.platform.there == set()


def test_after_a_signal_that_failed_somebody_can_try_again(house: House) -> None:
    def people() -> None:
        house.up()
        house.world.platform.fails = {"stop fw"}
        os.kill(os.getpid(), signal.SIGTERM)
        house.until(lambda: not house.world.platform.fails)
        house.until(lambda: isinstance(house.ask("status"), Answer))

    house.live(people)

    assert house.world.platform.there == set()


def test_a_rule_expires_at_its_time(house: House) -> None:
    def people() -> None:
        house.up()
        assert house.icmp()
        # The clock jumps to just before, as after a suspend, and all else is real.
        house.clock.ahead = house.expire - 0.02 - time.time()
        house.domains()
        house.until(lambda: not house.icmp())
        expired = f"work: expired: accept expire={house.expire} proto=icmp"
        assert house.texts()[-1] == expired

    house.live(people)

    assert f"expire={house.expire}" in house.file.read_text()


def test_a_rule_that_expires_in_a_hundred_years_is_waited_for(house: House) -> None:
    """No system call waits that long at a time."""
    end = int(time.time()) + 100 * 365 * 86400
    house.file.write_text(f'[domains.vault]\nfirewall = ["accept expire={end}"]\n')

    def people() -> None:
        house.up()
        assert house.domains() == {"vault"}

    house.live(people)

    assert max(x for x in house.world.selector.patience if x is not None) > 3600.0


def test_a_rule_expires_although_the_daemon_was_busy_at_its_time(
    house: House,
) -> None:
    def people() -> None:
        house.up()
        house.clock.ahead = house.expire + 10 - time.time()
        house.domains()
        house.until(lambda: not house.icmp())
        before = len(house.texts())
        house.domains()
        assert len(house.texts()) == before  # once

    house.live(people)


def test_a_rule_expires_also_after_a_restart_of_the_daemon(house: House) -> None:
    house.live(house.up)

    def people() -> None:
        house.up()
        assert house.icmp()
        house.clock.ahead = house.expire - 0.02 - time.time()
        house.domains()
        house.until(lambda: not house.icmp())

    house.live(people)


def test_a_rule_that_expired_while_nobody_looked_never_comes(house: House) -> None:
    house.clock.ahead = house.expire + 1 - time.time()

    def people() -> None:
        house.up()
        assert not house.icmp()

    house.live(people)


def test_a_clock_that_was_ahead_has_expired_nothing(house: House) -> None:
    """Once it is put right, the rule is in force until its time."""
    house.clock.ahead = house.expire + 1 - time.time()

    def people() -> None:
        house.up()
        assert not house.icmp()
        house.clock.ahead = 0.0
        house.domains()
        house.until(house.icmp)

    house.live(people)


def without_ping(house: House) -> str:
    """Take the rule for ping out of the policy file; return its text before."""
    before = house.file.read_text()
    house.file.write_text(before.replace("accept proto=icmp", "drop proto=icmp"))
    return before


def test_a_change_that_nobody_confirms_goes_by_itself_although_who_asked_is_gone(
    house: House,
) -> None:
    def people() -> None:
        house.up()
        before = without_ping(house)
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(str(house.path))
            asking.sendall(encode(Request("apply", {"confirm": 1})))
            house.until(lambda: not house.icmp())
        # Who only looks has confirmed nothing.
        house.until(lambda: house.file.read_text() == before)
        house.until(house.icmp)
        assert any("not confirmed in time: rolled back" in x for x in house.texts())

    house.live(people)


def test_a_change_that_is_confirmed_stays(house: House) -> None:
    def people() -> None:
        house.up()
        without_ping(house)
        after = house.file.read_text()
        house.data("apply", confirm=3600)
        house.data("confirm")
        assert (house.icmp(), house.file.read_text()) == (False, after)
        house.data("apply", confirm=None)

    house.live(people)


def test_a_disposable_ends_with_who_holds_it(house: House) -> None:
    def people() -> None:
        house.up()
        first, second = house.disposable(), house.disposable()
        holder = house.hold(first)
        house.hold(second)
        assert {first, second} <= house.domains()
        holder.close()
        house.until(lambda: first not in house.domains())
        assert second in house.domains()
        assert first not in house.world.platform.there

    house.live(people)

    assert house.world.platform.there == set()


def test_a_disposable_that_nobody_holds_ends_by_itself(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_module, "HOLD_WITHIN", 0.01)

    def people() -> None:
        house.up()
        name = house.disposable()
        house.until(lambda: name not in house.domains())

    house.live(people)


def test_a_disposable_in_the_making_is_not_ended(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_module, "HOLD_WITHIN", 0.0)
    monkeypatch.setattr(Numbers, "dispid", lambda *_: 77)

    def people() -> None:
        house.up()
        assert house.disposable() == "disp77"
        assert "attach disp77 to fw" in house.world.platform.said

    house.live(people)


def test_what_somebody_ended_is_made_anew(house: House) -> None:
    def people() -> None:
        house.up()
        house.world.platform.vanish("net")
        house.world.platform.agents["net"].kill(9)
        house.until(lambda: "net" in house.world.platform.there)
        house.until(lambda: "fw" in house.world.platform.cables)
        assert "net: is gone, somebody else has ended it" in house.texts()

    house.live(people)


def test_the_journal_has_what_happened_by_itself(house: House) -> None:
    def people() -> None:
        house.up()
        house.world.platform.manners["fw"].state = "blocked"
        house.world.platform.manners["fw"].ends = "no kernel"
        house.world.platform.agents["fw"].kill(9)
        house.until(
            lambda: "fw: its agent ended, exit code 1: no kernel" in house.texts()
        )
        house.world.platform.manners["fw"].ends = ""
        house.until(lambda: house.texts().count("fw: its agent is ready") == 2)
        house.until(lambda: "fw: state starting -> blocked" in house.texts())
        texts = house.texts()
        assert "fw: state starting -> up" in texts
        assert "+ netvm red, uplink lab" in texts[0]

    house.live(people)


def test_the_journal_has_who_is_denied_and_no_longer(house: House) -> None:
    heard = house.world.databases._heard
    denied = "work: denied everything: rule 0: what"

    def people() -> None:
        house.up()
        heard("fw", "/ravelin/error/10.137.0.3", b"rule 0: what")
        house.until(lambda: house.texts()[-1] == denied)
        heard("fw", "/ravelin/error/10.137.0.3", None)
        house.until(lambda: house.texts()[-1] == "work: no longer denied everything")
        assert house.texts().count(denied) == 1

    house.live(people)


MISHAPS = {
    "none": lambda _: None,
    "a disposable that failed": lambda house: house.world.platform.fails.add(
        "start disp77"
    ),
}


@pytest.mark.parametrize("mishap", MISHAPS.values(), ids=MISHAPS)
def test_the_loop_sleeps_when_there_is_nothing_to_do(
    house: House,
    monkeypatch: pytest.MonkeyPatch,
    mishap: Callable[[House], None],
) -> None:
    monkeypatch.setattr(Numbers, "dispid", lambda *_: 77)
    words = {"domain": "work", "command": ("true",), "disposable": True}
    patience = house.world.selector.patience

    def asleep() -> bool:
        return patience[-1] is None or patience[-1] > 1.0

    def people() -> None:
        house.up()
        mishap(house)
        if isinstance(house.ask("run", **words), Answer):
            house.hold("disp77")
            house.until(lambda: house.handler.disposables == {"disp77"})
        house.until(asleep)
        before = len(patience)
        for _ in range(20):
            house.domains()
            house.until(asleep)
        # For each the connection, the request, its one step, the hang-up.
        assert len(patience) - before <= 20 * 6

    house.live(people)

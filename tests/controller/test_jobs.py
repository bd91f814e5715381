# SPDX-License-Identifier: GPL-2.0-or-later
"""One piece of work after the other, and nobody waits for ever."""

from dataclasses import dataclass, field

import pytest

from controller.admin import Answer, Exit, Failure, Progress, Reply
from controller.jobs import Jobs
from controller.steps import Until, Work


@dataclass
class Desk:
    """Jobs with a clock that only the test moves."""

    now: float = 100.0
    told: list[tuple[str, object]] = field(default_factory=list)
    open: set[str] = field(default_factory=set)
    jobs: Jobs = field(init=False)

    def __post_init__(self) -> None:
        self.jobs = Jobs(lambda: self.now)

    def add(self, name: str, *steps: str | float, **words: bool) -> None:
        def tell(reply: Reply) -> None:
            match reply:
                case Progress(text):
                    self.told.append((name, text))
                case Answer(data):
                    self.told.append((name, data))
                case Failure(_, text):
                    self.told.append((name, f"failed: {text}"))

        self.jobs.add(self.work(name, *steps), tell, **words)

    def work(self, name: str, *steps: str | float) -> Work:
        try:
            for step in steps:
                if isinstance(step, str):
                    yield step
                else:
                    yield Until(f"{name} to open", lambda: name in self.open, step)
        except OSError as error:
            return Failure(Exit.NOT_ENFORCED, f"{type(error).__name__}: {error}")
        return Answer("done")

    def go(self) -> list[tuple[str, object]]:
        """Do all that need not wait; return what was told meanwhile."""
        self.told.clear()
        while (at := self.jobs.deadline()) is not None and at <= self.now:
            self.jobs.go_on()
        return list(self.told)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_without_jobs_there_is_nothing_to_wait_for(desk: Desk) -> None:
    desk.jobs.go_on()

    assert not desk.jobs
    assert desk.jobs.deadline() is None


def test_a_job_is_told_of_step_by_step_and_at_its_end(desk: Desk) -> None:
    desk.add("a", "one", "two")
    assert desk.jobs

    assert desk.go() == [("a", "one"), ("a", "two"), ("a", "done")]
    assert not desk.jobs


def test_others_are_served_between_two_steps(desk: Desk) -> None:
    desk.add("a", "one", "two")

    desk.jobs.go_on()

    assert desk.told == [("a", "one")]
    assert desk.jobs.deadline() == desk.now


def test_what_waits_goes_on_when_it_is_done(desk: Desk) -> None:
    desk.add("a", "one", 5.0, "two")

    assert desk.go() == [("a", "one")]
    assert desk.jobs.deadline() == desk.now + 5.0
    desk.open.add("a")
    assert desk.go() == [("a", "two"), ("a", "done")]


def test_what_is_done_before_it_waits_does_not_wait(desk: Desk) -> None:
    desk.open.add("a")
    desk.add("a", 5.0, "two")

    assert desk.go() == [("a", "two"), ("a", "done")]


def test_what_waits_in_vain_gets_a_timeout_at_its_time(desk: Desk) -> None:
    desk.add("a", 5.0, "two")
    assert desk.go() == []
    desk.now += 4.9
    assert desk.go() == []

    desk.now += 0.1

    assert desk.go() == [("a", "failed: TimeoutError: a to open")]
    assert not desk.jobs


def test_done_at_the_last_moment_is_done(desk: Desk) -> None:
    desk.add("a", 5.0)
    desk.go()
    desk.now += 5.0
    desk.open.add("a")

    assert desk.go() == [("a", "done")]


def test_the_next_job_begins_when_the_one_before_has_ended(desk: Desk) -> None:
    desk.add("a", 5.0)
    desk.add("b", "one")

    assert desk.go() == []
    desk.open.add("a")
    assert desk.go() == [("a", "done"), ("b", "one"), ("b", "done")]


def test_who_has_to_wait_for_another_job_is_told(desk: Desk) -> None:
    desk.add("a", 5.0)
    desk.add("look", beside=True)
    assert desk.told == []
    desk.add("b")

    assert desk.told == [("b", "waiting for what was asked for before")]


def test_every_wait_has_its_own_time(desk: Desk) -> None:
    desk.add("a", 5.0, 7.0)
    desk.go()
    desk.now += 4.0
    desk.open.add("a")
    desk.jobs.go_on()
    desk.open.clear()

    desk.go()

    assert desk.jobs.deadline() == desk.now + 7.0


def test_who_only_looks_need_not_wait_for_others(desk: Desk) -> None:
    desk.add("a", 5.0, "two")
    desk.go()
    desk.add("look", "seen", beside=True)

    assert desk.go() == [("look", "seen"), ("look", "done")]
    assert desk.jobs.deadline() == desk.now + 5.0


def test_nobody_waits_for_who_only_looks(desk: Desk) -> None:
    desk.add("look", 5.0, "seen", beside=True)
    desk.go()
    desk.add("see", "quickly", beside=True)
    desk.add("a", "one")

    assert desk.jobs.changing
    assert desk.go() == [
        ("see", "quickly"),
        ("a", "one"),
        ("see", "done"),
        ("a", "done"),
    ]
    assert (desk.jobs.changing, bool(desk.jobs)) == (False, True)
    desk.open.add("look")
    assert desk.go() == [("look", "seen"), ("look", "done")]
    assert not desk.jobs


def test_nobody_waits_any_more_when_all_goes_down(desk: Desk) -> None:
    desk.add("a", 5.0, "never")
    desk.add("b", "one", 5.0, "never")
    desk.go()
    desk.add("down", "stopping", urgent=True)

    assert desk.go() == [
        ("a", "failed: InterruptedError: waited no more for a to open"),
        ("b", "one"),
        ("b", "failed: InterruptedError: waited no more for b to open"),
        ("down", "stopping"),
        ("down", "done"),
    ]


def test_a_mistake_in_a_job_ends_that_job_alone(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    """The next one is done, and the log has where it was."""

    def broken() -> Work:
        yield "begun"
        raise KeyError("nothing of that name")

    said: list[Reply] = []
    desk.jobs.add(broken(), said.append)
    desk.add("next")

    assert desk.go() == [("next", "done")]
    assert said[0] == Progress("begun")
    assert isinstance(said[1], Failure)
    assert said[1].exit_code is Exit.NOT_ENFORCED
    assert "KeyError('nothing of that name')" in said[1].text
    assert "in broken" in caplog.text

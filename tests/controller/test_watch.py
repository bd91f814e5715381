# SPDX-License-Identifier: GPL-2.0-or-later
"""A proof follows every change, when it is quiet, and never while all else changes."""

from dataclasses import dataclass, field, replace
from typing import cast

import pytest

from controller.journal import Journal
from controller.kernel_events import KernelEvents
from controller.prover import Ticket
from controller.scene import Scene
from controller.standing import Standing
from controller.tasks import Task, Verify
from controller.watch import AGAIN, LATEST, OUTDATED, QUIET, Watch
from tests.controller.scenes import scene


@dataclass
class SlowProver:
    """Takes tasks, and answers when the test says so."""

    tickets: list[Ticket] = field(default_factory=list)
    closed: bool = False

    def ask(self, task: Task) -> Ticket:
        self.tickets.append(Ticket(task))
        return self.tickets[-1]

    def tick(self) -> None:
        pass

    def next_deadline(self) -> None:
        return None

    def close(self) -> None:
        self.closed = True


@dataclass
class Followed:
    """Who the watch listens to."""

    names: list[str] = field(default_factory=list)
    closed: bool = False

    def follow(self, names: list[str]) -> None:
        self.names = names

    def close(self) -> None:
        self.closed = True


@dataclass
class Post:
    """A watch, with a clock that only the test moves."""

    now: float = 100.0
    scene: Scene | None = field(default_factory=scene)
    prover: SlowProver = field(default_factory=SlowProver)
    events: Followed = field(default_factory=Followed)
    watch: Watch = field(init=False)

    def __post_init__(self) -> None:
        self.watch = Watch(
            self.prover,
            Standing(Journal(), lambda: self.now),
            lambda: self.scene,
            lambda: self.now,
            cast("KernelEvents", self.events),
        )

    def look(self, *, busy: bool = False) -> int:
        """Look; return how many proofs have begun so far."""
        self.watch.look(busy=busy)
        return len(self.prover.tickets)

    def pass_time(self, seconds: float, *, busy: bool = False) -> int:
        self.now += seconds
        return self.look(busy=busy)

    def answer(self, status: str = "proved") -> None:
        row = {"status": status, "claim": "c", "notes": ["n"]}
        self.prover.tickets[-1].answer = {"results": [row], "generations": {}}
        self.look()

    def text(self) -> object:
        data = self.watch.standing.data()
        return data["text"] if isinstance(data, dict) else None


@pytest.fixture
def post() -> Post:
    return Post()


def test_a_proof_begins_when_it_has_been_quiet_for_a_moment(post: Post) -> None:
    assert post.look() == 0
    assert post.text() == "not proved yet"
    assert post.watch.deadline() == post.now + QUIET
    assert post.pass_time(QUIET / 2) == 0
    post.watch.changed()
    assert post.pass_time(QUIET / 2) == 0
    assert post.pass_time(QUIET) == 1
    assert post.prover.tickets[0].task == Verify(scene(), replay=False)
    post.answer()
    assert post.text() == "proved"


def test_who_never_is_quiet_is_proved_all_the_same(post: Post) -> None:
    post.look()
    begun = post.now
    while not post.prover.tickets:
        post.watch.changed()
        post.pass_time(QUIET / 2)

    assert LATEST <= post.now - begun < LATEST + QUIET


def test_nothing_begins_while_something_is_being_enforced(post: Post) -> None:
    assert post.look(busy=True) == 0
    assert post.pass_time(LATEST * 2, busy=True) == 0
    assert post.watch.deadline() is None
    assert post.look() == 1


def test_what_changes_during_a_proof_is_proved_after_it(post: Post) -> None:
    post.look()
    post.pass_time(QUIET)
    post.watch.changed()
    assert post.pass_time(LATEST) == 1
    post.answer("refuted")
    assert (post.text(), post.watch.standing.changed) == ("not proved yet", True)
    assert post.look() == 2
    post.answer()
    assert (post.text(), post.watch.standing.changed) == ("proved", False)
    assert post.pass_time(LATEST) == 2


def test_an_answer_is_told_now_and_then_although_all_keeps_changing(post: Post) -> None:
    post.look()
    told = []
    for _ in range(OUTDATED):
        post.pass_time(LATEST)
        post.watch.changed()
        post.answer("refuted")
        told.append(post.text())

    assert told == ["not proved yet"] * (OUTDATED - 1) + ["REFUTED: c"]
    assert post.watch.standing.changed


def test_kernels_are_not_refuted_by_what_was_wanted_of_them_before(post: Post) -> None:
    post.look()
    for number in range(OUTDATED):
        post.pass_time(LATEST)
        post.scene = replace(scene(), serials={"fw": number})
        post.look()
        post.answer("refuted")

    assert post.text() == "not proved: what is wanted changes faster than it is proved"


def test_another_policy_is_proved_and_the_time_alone_is_none(post: Post) -> None:
    post.look()
    post.pass_time(QUIET)
    post.answer()
    assert post.scene is not None
    post.scene = replace(post.scene, now=post.scene.now + 7)
    post.look()
    assert post.pass_time(LATEST) == 1

    post.scene = replace(post.scene, serials={"fw": 1})
    post.look()
    assert post.pass_time(QUIET) == 2


def test_it_is_proved_again_now_and_then(post: Post) -> None:
    post.look()
    post.pass_time(QUIET)
    post.answer()

    assert post.watch.deadline() == post.now + AGAIN
    assert post.pass_time(AGAIN - 1) == 1
    assert post.pass_time(1) == 2


def test_when_nothing_is_up_nothing_is_known(post: Post) -> None:
    post.look()
    post.pass_time(QUIET)
    post.answer()
    assert post.events.names == ["net", "fw", "work", "four", "vault"]
    post.scene = None

    assert post.pass_time(AGAIN) == 1
    assert (post.text(), post.events.names, post.watch.deadline()) == (None, [], None)


def test_an_answer_that_comes_too_late_says_nothing(post: Post) -> None:
    post.look()
    post.pass_time(QUIET)
    post.scene = None
    post.look()
    post.answer()

    assert post.text() is None


def test_who_closes_it_closes_all_of_it(post: Post) -> None:
    post.watch.close()

    assert (post.prover.closed, post.events.closed) == (True, True)

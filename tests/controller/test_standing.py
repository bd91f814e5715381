# SPDX-License-Identifier: GPL-2.0-or-later
"""The last proof is told with its age, and only what is new goes into the log."""

from controller.admin import Json
from controller.journal import Journal
from controller.output import rows
from controller.prover import Ticket
from controller.standing import Standing
from controller.tasks import Task, Verify
from tests.controller.scenes import scene

TASK: Task = Verify(scene(), replay=False)


def answer(*results: dict[str, Json]) -> Ticket:
    return Ticket(TASK, {"results": results, "generations": {"net": 41}})


PROVED = {"status": "proved", "claim": "a", "notes": ["if"], "packet": "p"}
REFUTED = {"status": "refuted", "claim": "b", "notes": [], "packet": "tcp 1 > 2"}
POSSIBLE = {"status": "possible", "claim": "c", "notes": ["a limit"], "packet": "p"}
UNKNOWN = {"status": "unknown", "claim": "d", "notes": ["cut off"], "packet": None}


def text(standing: Standing) -> object:
    data = standing.data()
    assert isinstance(data, dict)
    return data["text"]


def test_before_a_proof_nothing_is_known() -> None:
    assert Standing(Journal()).data() is None


def test_a_proof_is_told_with_its_age_and_generations() -> None:
    now = [10.0]
    standing = Standing(Journal(), lambda: now[0])
    standing.take(answer(PROVED, PROVED))
    now[0] = 10.34

    assert standing.data() == {
        "state": "proved",
        "text": "proved",
        "claims": 2,
        "generations": {"net": 41},
        "age": 0.3,
        "changed": False,
    }
    standing.clear()
    assert standing.data() is None


def test_what_is_up_and_not_proved_yet_has_no_age() -> None:
    standing = Standing(Journal())
    standing.expect()
    data = standing.data()

    assert isinstance(data, dict)
    assert (data["text"], data["state"], data["age"]) == (
        *("not proved yet", "pending"),
        None,
    )
    standing.take(answer(PROVED))
    standing.expect()
    assert text(standing) == "proved"


def test_the_worst_answer_is_told() -> None:
    standing = Standing(Journal())
    for results, said in (
        ((PROVED, UNKNOWN), "not proved: d: cut off"),
        ((POSSIBLE, UNKNOWN), "not proved: c: a limit"),
        ((UNKNOWN, POSSIBLE, REFUTED, PROVED), "REFUTED: b: tcp 1 > 2"),
        ((PROVED,), "proved"),
    ):
        standing.take(answer(*results))
        assert text(standing) == said


def test_a_prover_that_failed_has_proved_nothing() -> None:
    standing = Standing(Journal())
    standing.take(Ticket(TASK, failed="the prover has ended"))

    assert text(standing) == "not proved: the prover has ended"


def test_nothing_claimed_is_nothing_proved() -> None:
    standing = Standing(Journal())
    standing.take(answer())

    assert text(standing) == "not proved: nothing was claimed"


def test_the_log_hears_of_a_refutation_once_and_of_its_end() -> None:
    journal = Journal()
    standing = Standing(journal)
    for result in (PROVED, PROVED, REFUTED, REFUTED, PROVED):
        standing.take(answer(result))

    events = [row["text"] for row in rows(journal.data(), "events")]
    assert events == ["REFUTED: b: tcp 1 > 2", "proved"]

# SPDX-License-Identifier: GPL-2.0-or-later
"""The prover is a process of its own: it answers, and nobody waits when it does not."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from selectors import DefaultSelector

import pytest

from controller import namespaces
from controller import prover as prover_module
from controller.domains import Domains
from controller.prover import Prover, Provers, Ticket
from controller.scene import Scene
from controller.tasks import Verify, Walk
from tests.controller.scenes import scene

DEADLINE = 30.0  # seconds
NOBODY = Verify(Scene(Domains({}), {}, {}, 0), replay=False)


@dataclass
class Office:
    """A prover, and the loop that serves it."""

    runtime: Path
    now: float = 0.0
    selector: DefaultSelector = field(default_factory=DefaultSelector)
    prover: Prover = field(init=False)

    def __post_init__(self) -> None:
        self.prover = Prover(self.selector, self.runtime, lambda: self.now)

    def serve(self, *tickets: Ticket) -> None:
        serve(self.selector, *tickets)


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path)
    yield made
    made.prover.close()
    assert not made.selector.get_map()
    made.selector.close()


def serve(selector: DefaultSelector, *tickets: Ticket) -> None:
    deadline = time.monotonic() + DEADLINE
    while not all(ticket.done() for ticket in tickets):
        assert time.monotonic() < deadline
        for key, mask in selector.select(deadline - time.monotonic()):
            key.data(mask)


def pid_of(prover: Prover) -> int:
    assert prover._process is not None
    return prover._process.pid


def child(office: Office) -> int:
    return pid_of(office.prover)


def test_tasks_are_answered_one_after_the_other_by_one_process(office: Office) -> None:
    first, second = office.prover.ask(NOBODY), office.prover.ask(NOBODY)
    pid = child(office)
    assert not first.done()
    office.serve(first, second)

    assert first.answer == second.answer
    assert isinstance(first.answer, dict)
    assert (first.answer["results"], first.failed) == ([], None)
    assert child(office) == pid


def test_domains_that_are_not_there_are_named_and_nothing_is_proved(
    office: Office,
) -> None:
    home = scene()
    ticket = office.prover.ask(Verify(home, replay=True))
    office.serve(ticket)

    assert isinstance(ticket.answer, dict)
    found = ticket.answer["results"]
    assert {row["status"] for row in found} == {"unknown"}
    unread = [row["claim"] for row in found if "No such file" in row["notes"][0]]
    assert unread == [f"{d.name} is as it should be" for d in home.domains]


def test_who_asks_for_a_packet_does_not_wait_for_proofs(tmp_path: Path) -> None:
    selector = DefaultSelector()
    provers = Provers(selector, tmp_path)
    slow = provers.ask(NOBODY)
    os.kill(pid_of(provers._long), signal.SIGSTOP)
    quick = provers.ask(Walk(scene(), "work", ()))
    serve(selector, quick)

    assert isinstance(quick.answer, dict)
    assert (quick.answer["ways"], slow.done()) == ([], False)
    assert provers.next_deadline() is not None
    provers.close()
    assert not selector.get_map()
    selector.close()


def test_a_prover_that_ends_has_proved_nothing_and_is_started_again(
    office: Office,
) -> None:
    ticket, next_one = office.prover.ask(NOBODY), office.prover.ask(NOBODY)
    pid = child(office)
    os.kill(pid, signal.SIGKILL)
    office.serve(ticket, next_one)

    assert (ticket.answer, ticket.failed) == (None, "the prover has ended")
    assert next_one.failed is None
    assert child(office) != pid


@pytest.fixture
def work(office: Office) -> Iterator[Path]:
    """The network of a domain of `scene`, the only one that is there."""
    net = office.runtime / "ns" / "work"
    net.parent.mkdir()
    namespaces.create(net)
    yield net
    namespaces.remove(net)


def is_inside(pid: int, net: Path) -> bool:
    """Whether any thread of a process is in a network at this moment."""
    places = (task / "ns/net" for task in Path(f"/proc/{pid}/task").iterdir())
    return any(os.path.samestat(each.stat(), net.stat()) for each in places)


def stop_inside(office: Office, net: Path) -> Ticket:
    """Have the prover look, and stop it in the middle of a look into a network."""
    deadline = time.monotonic() + DEADLINE
    while True:
        ticket = office.prover.ask(Verify(scene(), replay=False))
        pid = child(office)
        while not (ticket.done() or is_inside(pid, net)):
            assert time.monotonic() < deadline
            for key, mask in office.selector.select(0):
                key.data(mask)
        os.kill(pid, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
        if is_inside(pid, net):
            return ticket
        os.kill(pid, signal.SIGCONT)
        office.serve(ticket)


@pytest.mark.kernel
def test_a_domain_that_ends_does_not_end_who_looks_into_it(
    office: Office, work: Path
) -> None:
    ticket = stop_inside(office, work)
    pid = child(office)

    namespaces.kill_all(work)

    os.kill(pid, signal.SIGCONT)
    office.serve(ticket)
    assert ticket.failed is None
    assert child(office) == pid


def test_a_prover_that_does_not_answer_is_given_up(office: Office) -> None:
    ticket = office.prover.ask(NOBODY)
    os.kill(child(office), signal.SIGSTOP)
    deadline = office.prover.next_deadline()
    assert deadline == prover_module.LIMIT
    office.now = deadline
    office.prover.tick()

    assert ticket.failed == "the prover has not answered within 300 s"
    assert office.prover.next_deadline() is None


def test_a_prover_that_cannot_start_is_an_answer(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prover_module.sys, "executable", "/no/such/python")

    ticket = office.prover.ask(NOBODY)

    assert ticket.failed is not None
    assert ticket.failed.startswith("the prover does not start: ")


def test_nothing_is_left_of_a_prover_that_is_closed(office: Office) -> None:
    office.prover.ask(NOBODY)
    pid = child(office)
    office.prover.close()

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)

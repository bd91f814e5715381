# SPDX-License-Identifier: GPL-2.0-or-later
"""Work that must wait now and then, carried out one piece after the other."""

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from controller.admin import Exit, Failure, Progress, Reply
from controller.steps import Until, Work

log = logging.getLogger(__name__)

MISTAKE = "a mistake in the program, see daemon.log; it may be half done"

Tell = Callable[[Reply], None]


@dataclass(slots=True, eq=False)
class _Job:
    work: Work
    tell: Tell
    urgent: bool
    until: Until | None = None
    deadline: float = 0.0


class Jobs:
    """A queue; the next job begins when the one before it has ended.

    Beside it are those that only look: they wait for nobody, and nobody for them.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._jobs: deque[_Job] = deque()
        self._beside: list[_Job] = []

    def __bool__(self) -> bool:
        """Whether anything is left to do."""
        return bool(self._jobs or self._beside)

    @property
    def changing(self) -> bool:
        """Whether anything is left to do but to look."""
        return bool(self._jobs)

    def add(
        self, work: Work, tell: Tell, *, beside: bool = False, urgent: bool = False
    ) -> None:
        """Carry out ``work`` in its turn; ``tell`` gets its progress and its end.

        What only looks is carried out ``beside`` the queue.  What is ``urgent``
        comes last all the same, but those before it wait no more.
        """
        job = _Job(work, tell, urgent)
        if beside:
            self._beside.append(job)
            return
        if self._jobs:
            tell(Progress("waiting for what was asked for before"))
        self._jobs.append(job)

    def deadline(self) -> float | None:
        """Return when to call `go_on` at the latest, by the clock given."""
        return min(map(self._due, self._ready()), default=None)

    def go_on(self) -> None:
        """Do one step of each that need not wait: in between the caller serves."""
        for job in self._ready():
            self._go_on(job)

    def _ready(self) -> list[_Job]:
        return [*self._beside, *islice(self._jobs, 1)]

    def _due(self, job: _Job) -> float:
        until = job.until
        waits = until is not None and not until.done() and not self._hurried()
        return job.deadline if waits else self._clock()

    def _go_on(self, job: _Job) -> None:
        try:
            step = self._step(job)
        except StopIteration as end:
            self._ended(job, end.value)
            return
        except Exception as error:
            # A job is a program of its own: the mistake in it is ours, and its end
            # is no reason to stop the agents, for whom nothing has changed.
            log.exception("a mistake in the program")
            self._ended(job, Failure(Exit.NOT_ENFORCED, f"{MISTAKE}: {error!r}"))
            return
        match step:
            case Until(seconds=seconds):
                if step is not job.until:
                    job.until, job.deadline = step, self._clock() + seconds
            case str():
                job.tell(Progress(step))

    def _ended(self, job: _Job, reply: Reply) -> None:
        if job in self._beside:
            self._beside.remove(job)
        else:
            self._jobs.remove(job)
        job.tell(reply)

    def _step(self, job: _Job) -> str | Until:
        until = job.until
        if until is None or until.done():
            job.until = None
            return next(job.work)
        if self._hurried():
            job.until = None
            return job.work.throw(InterruptedError(f"waited no more for {until.what}"))
        if job.deadline <= self._clock():
            job.until = None
            return job.work.throw(TimeoutError(until.what))
        return until

    def _hurried(self) -> bool:
        return any(job.urgent for job in self._jobs)

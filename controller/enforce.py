# SPDX-License-Identifier: GPL-2.0-or-later
"""A policy file comes into force: read, judged, enforced, and kept or put back."""

import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from controller import durable, report, said
from controller.admin import Answer, Exit, Failure, Json
from controller.deploy import Deployment
from controller.domains import Domain, Domains, DomainsError
from controller.effect import effect
from controller.filed import Filed, placed
from controller.idle import idle
from controller.journal import Journal
from controller.judge import Judge, Verdicts
from controller.numbers import Numbers
from controller.plan import Change, plan
from controller.policy import asserted, read, text_of
from controller.steps import Work
from controller.trial import Before, Trial
from rules.decide import Names

AGAIN = 60.0  # seconds until a policy file that could not be put back is tried again


class NothingIsUpError(RuntimeError):
    """A verb that needs domains, before ``up``."""


class RefusedError(RuntimeError):
    """A policy that may not come into force, and why; nothing has changed."""


@dataclass(slots=True)
class Enforcer:
    """Makes the running domains what a policy file says.

    ``filed`` is the policy in force, None before ``up``; ``disposables`` are the
    domains beside it; ``leaving`` is whether the daemon has nothing more to do.
    """

    deployment: Deployment
    numbers: Numbers
    journal: Journal
    check: Callable[[Iterable[Domain]], None]  # UplinkError: they cannot all be
    trial: Trial
    filed: Filed | None = None
    disposables: set[str] = field(default_factory=set)
    leaving: bool = False
    _changing: bool = False

    @property
    def domains(self) -> Domains:
        """What is wanted now."""
        return self.deployment.domains

    def is_still(self) -> bool:
        """Whether nothing is being enforced at this moment."""
        return not self._changing

    def in_force(self) -> Filed:
        """Return the policy in force, or raise `NothingIsUpError`."""
        if self.filed is None:
            raise NothingIsUpError("nothing is up; `ravelin up POLICY.toml` starts it")
        return self.filed

    def read(self, file: Path, text: str | None = None) -> Filed:
        """Read a policy file, or what is to be its text, or raise `PolicyError`."""
        text = text_of(file) if text is None else text
        numbers = self.numbers.known()
        wanted = read(text, file=str(file), qids=numbers, now=int(time.time()))
        # What the file does not know stays: disposables end by themselves.
        mine = {d.name: d for d in self.domains if d.name in self.disposables}
        domains = Domains({**wanted.by_name, **mine})
        return Filed(file, text, domains, asserted(text))

    def filed_now(self) -> Filed:
        """Return what is in the policy file now, in force or not."""
        return self.read(self.in_force().file)

    def plan(self) -> Work:
        """Answer with what `enforce` would change, and which assertions fail."""
        filed = self.filed_now()
        more = self._more(filed, (yield from self._judged(filed)))
        changes = self._changes(filed.domains)
        return Answer({**report.plan(changes), **(yield from more)})

    def enforce(self, file: Path, text: str | None = None) -> Work:
        """Enforce a policy file, with a new text if there is one."""
        self._none_on_trial()
        filed = self.read(file, text)
        # Lines are named as they are on disk, whatever is about to be written.
        there = filed.text if text is None else text_of(file)
        lines = replace(filed, text=there, asserted=asserted(there))
        more = yield from self._accepted(lines)
        if text is not None:
            if text_of(file) != there:
                raise RefusedError(f"{file} was changed meanwhile, try again")
            durable.replace(file, text)
        return (yield from self._enact(filed, more))

    def on_trial(self, seconds: int) -> Work:
        """Enforce the policy file, until it is confirmed or the seconds are over."""
        self._none_on_trial()
        before, filed = self.in_force(), self.filed_now()
        more = yield from self._accepted(filed)
        if filed.text == before.text:
            return (yield from self._enact(filed, more))
        self.trial.begin(Before(before.file, before.text))
        try:
            answer = yield from self._enact(filed, {**more, "confirm": seconds})
        except OSError:
            yield from self.roll_back("not enforced")
            raise
        if isinstance(answer, Failure):
            yield from self.roll_back("not enforced")
            return Failure(answer.exit_code, f"{answer.text}\nrolled back")
        self.trial.run(seconds)
        return answer

    def confirm(self) -> Answer:
        """Let a change on trial stay, or raise `RefusedError` if there is none."""
        before = self.trial.before
        rolled_back = before is not None and before.text == self.in_force().text
        if self.trial.left() is None or rolled_back:
            raise RefusedError("nothing awaits confirmation")
        self.trial.end()
        self.journal.add("dom0", "confirmed")
        return Answer(report.plan(()))

    def roll_back(self, why: str) -> Work:
        """Put back what was in force before a trial, the policy file included."""
        before, self.trial.deadline = self.trial.before, None
        if before is None:
            return Answer(report.plan(()))
        try:  # the kernels first: there may be no room left for the files
            try:
                filed = self.read(before.file, before.text)
            except DomainsError:
                self.disposables.clear()  # they were made of what goes
                filed = self.read(before.file, before.text)
            self.filed = filed
            answer = yield from self.become(filed.domains)
        finally:
            self._put_back(why)
        return answer

    def down(self) -> Work:
        """Stop every domain; what nobody has confirmed goes from the file."""
        self.disposables.clear()
        try:
            answer = yield from self.become(Domains({}))
            self.filed, self.leaving = None, True
        finally:  # last: what finds no room now is put back by the next daemon
            self.trial.put_back()
        return answer

    def become(
        self,
        wanted: Domains,
        more: Mapping[str, Json] | None = None,
        *,
        renew: frozenset[str] = frozenset(),
    ) -> Work:
        """Make the running domains these; ``more`` is said in the answer."""
        changes = self._changes(wanted)
        for change in changes:
            self.journal.add(change.domain, f"{change.sign.value} {change.text}")
        self._changing = True
        try:
            with placed(self.filed):
                yield from self.deployment.become(wanted, renew=renew)
        finally:
            self._changing = False
        changed = {change.domain for change in changes} | renew
        refused = said.refusals(self.deployment).items()
        lines = [f"{n}: {why}" for n, why in refused if n in changed or not changed]
        if lines:
            return self.failed("\n".join(lines))
        return Answer({**report.plan(changes), **(more or {})})

    def failed(self, text: str) -> Failure:
        """Write down what could not be enforced, and return it."""
        self.journal.add("dom0", text)
        return Failure(Exit.NOT_ENFORCED, text)

    def _put_back(self, why: str) -> None:
        try:
            kept = self.trial.put_back()
        except OSError:
            self.trial.run(AGAIN)
            raise
        self.journal.add("dom0", f"{why}: rolled back, the file's text is in {kept}")

    def _changes(self, wanted: Domains) -> tuple[Change, ...]:
        launches = self.deployment.launches
        outdated = {d.name for d in wanted if launches.is_outdated(d)}
        return plan(self.domains, wanted, outdated)

    def _enact(self, filed: Filed, more: Mapping[str, Json]) -> Work:
        self.numbers.keep({d.name: d.qid for d in filed.domains if not d.disposable})
        # Who says `up` after `down` wants this daemon to stay.
        self.filed, self.leaving = filed, False
        return (yield from self.become(filed.domains, more))

    def _judged(self, filed: Filed) -> Generator[str, None, Verdicts]:
        """Judge what a policy means, one assertion after the other."""
        judge = Judge(filed.domains, self._names(), int(time.time()))
        found = Verdicts()
        for verdicts in judge.verdicts(filed.asserted):
            found += verdicts
            yield "judging what the policy file means"
        return found

    def _accepted(self, filed: Filed) -> Generator[str, None, Mapping[str, Json]]:
        """Return what is said of a policy that keeps its assertions, or refuse it."""
        verdicts = yield from self._judged(filed)
        if verdicts.failing:
            lines = (f"{filed.file}:{line}" for line in verdicts.failing)
            raise RefusedError("\n".join(lines))
        with placed(filed):
            self.check(filed.domains)  # before anything is stopped
        return (yield from self._more(filed, verdicts))

    def _more(
        self, filed: Filed, verdicts: Verdicts
    ) -> Generator[str, None, Mapping[str, Json]]:
        """Return what is said of a policy beside its changes."""
        # To say of everything that it is new helps nobody.
        old = self.domains if self.domains.by_name else filed.domains
        about = old, filed.domains, self._names(), int(time.time())
        found: dict[str, list[Change]] = {"packets": [], "idle": []}
        for key, changes in (("packets", effect(*about)), ("idle", idle(*about))):
            for change in changes:
                found[key].append(change)
                yield f"comparing what {change.domain} reaches"
        return report.meaning(found, verdicts, str(filed.file))

    def _names(self) -> Names:
        return said.names(self.deployment.databases)

    def _none_on_trial(self) -> None:
        left = self.trial.left()
        if left is not None:
            raise RefusedError(
                f"the last change awaits confirmation: `ravelin confirm` keeps it, "
                f"in {left:.0f} s it is rolled back"
            )

# SPDX-License-Identifier: GPL-2.0-or-later
"""What the daemon does for each verb of the command."""

import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from controller import amend, keys, report, said, tor
from controller.admin import Answer, Exit, Failure, Request
from controller.deploy import Deployment
from controller.domains import Domain, Domains, DomainsError, UnknownDomainError
from controller.edit import EditError
from controller.enforce import Enforcer, NothingIsUpError, RefusedError
from controller.filed import Filed
from controller.journal import Journal
from controller.numbers import Numbers
from controller.policy import PolicyError
from controller.prover import Proving
from controller.question import QuestionError
from controller.standing import Standing
from controller.steps import Work
from controller.told import ToldError
from controller.traffic import Meter
from controller.trial import Trial
from controller.verify import Verifier

ROOT = Path(__file__).resolve().parents[1]


MISTAKES = (
    *(PolicyError, EditError, amend.AmendError, QuestionError, ToldError),
    *(UnknownDomainError, DomainsError, NothingIsUpError),
)


@dataclass(slots=True)
class Handler:
    """The verbs; a mistake of the user's is a `Failure`, never an exception."""

    deployment: Deployment
    numbers: Numbers
    journal: Journal
    runtime: Path
    check: Callable[[Iterable[Domain]], None]  # UplinkError: they cannot all be
    trial: Trial
    prover: Proving
    enforcer: Enforcer = field(init=False)
    verifier: Verifier = field(init=False)
    standing: Standing = field(init=False)
    meter: Meter = field(init=False)

    def __post_init__(self) -> None:
        """Start with nothing up."""
        self.meter = Meter(self.deployment.platform)
        self.enforcer = Enforcer(
            self.deployment, self.numbers, self.journal, self.check, self.trial
        )
        self.verifier = Verifier(self.enforcer, self.prover)
        self.standing = Standing(self.journal)

    @property
    def policy(self) -> Path | None:
        """The policy file in force, if any."""
        filed = self.enforcer.filed
        return None if filed is None else filed.file

    @property
    def disposables(self) -> set[str]:
        """The domains beside the policy file."""
        return self.enforcer.disposables

    @property
    def leaving(self) -> bool:
        """Whether the daemon has nothing more to do."""
        return self.enforcer.leaving

    def handle(self, request: Request) -> Work:
        """Carry out a request; what it yields is progress, or to be waited for."""
        verbs: Mapping[str, Callable[[Request], Work]] = {
            "up": self._up,
            "down": self._down,
            "status": self._status,
            "plan": self._plan,
            "apply": self._apply,
            "confirm": self._confirm,
            "run": self._run,
            "prefs": self._prefs,
            "firewall": self._firewall,
            "explain": self.verifier.explain,
            "verify": self.verifier.verify,
            "log": self._log,
            "restart": self._restart,
            "tor": lambda request: tor.tor(self.deployment, request),
        }
        return self._tried(verbs[request.verb](request))

    def discard(self, name: str) -> Work:
        """Remove a disposable for good; nothing of it stays."""
        self.disposables.discard(name)
        return self._tried(self._without({name}))

    def heal(self) -> Work:
        """Make the domains anew that somebody else has ended; disposables go."""
        return self._tried(self._healed())

    def roll_back(self) -> Work:
        """Put back what was in force before a change that nobody has confirmed."""
        return self._tried(self.enforcer.roll_back("not confirmed in time"))

    def expire(self) -> None:
        """Take the rules out whose time is over."""
        before = self.deployment.filled_at
        self.deployment.refill()
        now = self.deployment.filled_at
        for name, rule in keys.expired(self._domains, since=before, now=now):
            self.journal.add(name, f"expired: {amend.rule_text(rule)}")

    def _tried(self, work: Work) -> Work:
        try:
            return (yield from work)
        except MISTAKES as error:
            return Failure(Exit.USAGE, str(error))
        except RefusedError as error:
            return Failure(Exit.DIFFERS, str(error))
        except TimeoutError as error:
            behind = self.deployment.waiting()
            why = "; ".join(f"{name}: {reason}" for name, reason in behind.items())
            return self.enforcer.failed(f"gave up waiting for {error} ({why})")
        except OSError as error:
            return self.enforcer.failed(str(error))

    def _healed(self) -> Work:
        gone = self.deployment.vanished()
        for name in gone:
            self.journal.add(name, "is gone, somebody else has ended it")
        ended = gone & self.disposables
        self.disposables.difference_update(ended)
        return (yield from self._without(ended, renew=gone - ended))

    def _without(
        self, names: Collection[str], *, renew: frozenset[str] = frozenset()
    ) -> Work:
        kept = {n: d for n, d in self._domains.by_name.items() if n not in names}
        return (yield from self.enforcer.become(Domains(kept), renew=renew))

    @property
    def _domains(self) -> Domains:
        return self.deployment.domains

    def _up(self, request: Request) -> Work:
        try:
            return (yield from self.enforcer.enforce(Path(request.text("policy"))))
        finally:
            # Who was only started for what is refused has nothing to do.
            self.enforcer.leaving = self.enforcer.filed is None

    def _apply(self, request: Request) -> Work:
        seconds = request.maybe_number("confirm")
        if seconds is not None:
            return (yield from self.enforcer.on_trial(seconds))
        return (yield from self.enforcer.enforce(self.enforcer.in_force().file))

    def _confirm(self, _request: Request) -> Work:
        yield from ()
        return self.enforcer.confirm()

    def _plan(self, _request: Request) -> Work:
        return (yield from self.enforcer.plan())

    def _down(self, _request: Request) -> Work:
        return (yield from self.enforcer.down())

    def _restart(self, request: Request) -> Work:
        name = self._domains.named(request.text("domain")).name
        self.journal.add(name, "restart")
        return (yield from self.enforcer.become(self._domains, renew=frozenset({name})))

    def _status(self, _request: Request) -> Work:
        yield from ()
        states, problems = said.states(self.deployment), said.problems(self.deployment)
        reports = said.reports(self.deployment)
        traffic = self.meter.read(self.deployment.laid, time.monotonic())
        data = report.status(self._domains, states, problems, reports, traffic)
        left = self.trial.left()
        on_trial = None if left is None else round(left)
        return Answer({**data, "proof": self.standing.data(), "confirm": on_trial})

    def _run(self, request: Request) -> Work:
        name = self._domains.named(request.text("domain")).name
        disposable = request.flag("disposable")
        if disposable:
            taken = {d.qid for d in self._domains if d.disposable}
            dispid = self.numbers.dispid(taken)
            wanted, copy = self._domains.with_disposable(name, dispid)
            name = copy.name
            self.disposables.add(name)
            answer = yield from self._tried(self.enforcer.become(wanted))
            if isinstance(answer, Failure):
                yield from self.discard(name)
                return answer
        words = ["--disposable"] if disposable else []
        enter = [sys.executable, "-I", str(ROOT), "controller", "enter"]
        where = ["--runtime", str(self.runtime), *words, name, "--"]
        return Answer(
            {"domain": name, "argv": [*enter, *where, *request.words("command")]}
        )

    def _prefs(self, request: Request) -> Work:
        domain = self._domains.named(request.text("domain"))
        value = request.maybe_text("value")
        if value is None:
            return Answer(report.prefs(domain))
        if request.maybe_text("property") != "netvm":
            return Failure(Exit.USAGE, "prefs: expected netvm, only that can be set")
        filed = self.enforcer.filed_now()
        text = amend.relinked(filed.text, filed.domains, domain.name, value)
        return (yield from self.enforcer.enforce(filed.file, text))

    def _firewall(self, request: Request) -> Work:
        domain = self._domains.named(request.text("domain"))
        now, words = int(time.time()), request.words("rule")
        number = request.maybe_number("number")
        action = request.text("action")
        if action == "list":
            return Answer(report.rules(domain, now=now))
        filed = self._with_same_rules(domain)
        text = amend.changed(filed.text, domain, action, words, number=number, now=now)
        return (yield from self.enforcer.enforce(filed.file, text))

    def _with_same_rules(self, domain: Domain) -> Filed:
        """Return what is in the file, if a rule has the same number there."""
        filed = self.enforcer.filed_now()
        if filed.domains.named(domain.name).policy == domain.policy:
            return filed
        what = "the policy file has other rules by now"
        raise amend.AmendError(f"{domain.name}: {what}, `ravelin apply` comes first")

    def _log(self, _request: Request) -> Work:
        yield from ()
        return Answer(self.journal.data())

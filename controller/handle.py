# SPDX-License-Identifier: GPL-2.0-or-later
"""What the daemon does for each verb of the command."""

import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from controller import amend, durable, explain, keys, report, said, tor
from controller.admin import Answer, Exit, Failure, Request
from controller.deploy import Deployment
from controller.domains import Domain, Domains, DomainsError, UnknownDomainError
from controller.edit import EditError
from controller.journal import Journal
from controller.numbers import Numbers
from controller.plan import plan
from controller.policy import PolicyError, read, text_of
from controller.steps import Work

ROOT = Path(__file__).resolve().parents[1]


class NothingIsUpError(RuntimeError):
    """A verb that needs domains, before ``up``."""


MISTAKES = (
    *(PolicyError, EditError, amend.AmendError, explain.QuestionError),
    *(UnknownDomainError, DomainsError, NothingIsUpError),
)


@dataclass(slots=True)
class Handler:
    """The verbs; a mistake of the user's is a `Failure`, never an exception."""

    deployment: Deployment
    numbers: Numbers
    journal: Journal
    runtime: Path
    check: Callable[[Iterable[Domain]], None]  # OSError: they cannot all be
    policy: Path | None = None
    disposables: set[str] = field(default_factory=set)
    leaving: bool = False

    def handle(self, request: Request) -> Work:
        """Carry out a request; what it yields is progress, or to be waited for."""
        verbs: Mapping[str, Callable[[Request], Work]] = {
            "up": self._up,
            "down": self._down,
            "status": self._status,
            "plan": self._plan,
            "apply": self._apply,
            "run": self._run,
            "prefs": self._prefs,
            "firewall": self._firewall,
            "explain": self._explain,
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
        except TimeoutError as error:
            behind = self.deployment.waiting()
            why = "; ".join(f"{name}: {reason}" for name, reason in behind.items())
            return self._failed(f"gave up waiting for {error} ({why})")
        except OSError as error:
            return self._failed(str(error))

    def _failed(self, text: str) -> Failure:
        self.journal.add("dom0", text)
        return Failure(Exit.NOT_ENFORCED, text)

    def _healed(self) -> Work:
        gone = self.deployment.vanished()
        for name in gone:
            self.journal.add(name, "is gone, somebody else has ended it")
        ended = gone & self.disposables
        self.disposables -= ended
        return (yield from self._without(ended, renew=gone - ended))

    def _without(
        self, names: Collection[str], *, renew: frozenset[str] = frozenset()
    ) -> Work:
        kept = {n: d for n, d in self._domains.by_name.items() if n not in names}
        return (yield from self._become(Domains(kept), renew=renew))

    @property
    def _domains(self) -> Domains:
        return self.deployment.domains

    def _file(self) -> Path:
        if self.policy is None:
            raise NothingIsUpError("nothing is up; `ravelin up POLICY.toml` starts it")
        return self.policy

    def _read(self, text: str, file: Path) -> Domains:
        numbers = self.numbers.known()
        wanted = read(text, file=str(file), qids=numbers, now=int(time.time()))
        # What the file does not know stays: disposables end by themselves.
        mine = {d.name: d for d in self._domains if d.name in self.disposables}
        return Domains({**wanted.by_name, **mine})

    def _become(self, wanted: Domains, *, renew: frozenset[str] = frozenset()) -> Work:
        changes = plan(self._domains, wanted)
        for change in changes:
            self.journal.add(change.domain, f"{change.sign.value} {change.text}")
        yield from self.deployment.become(wanted, renew=renew)
        changed = {change.domain for change in changes} | renew
        refused = said.refusals(self.deployment).items()
        lines = [f"{n}: {why}" for n, why in refused if n in changed or not changed]
        if lines:
            return self._failed("\n".join(lines))
        return Answer(report.plan(changes))

    def _up(self, request: Request) -> Work:
        return (yield from self._enforce(Path(request.text("policy"))))

    def _apply(self, _request: Request) -> Work:
        return (yield from self._enforce(self._file()))

    def _enforce(self, file: Path, text: str | None = None) -> Work:
        """Enforce a policy file, with a new text if there is one."""
        wanted = self._read(text_of(file) if text is None else text, file)
        self.check(wanted)  # before anything is stopped
        self.numbers.keep({d.name: d.qid for d in wanted if not d.disposable})
        if text is not None:
            durable.replace(file, text)
        # Who says `up` after `down` wants this daemon to stay.
        self.policy, self.leaving = file, False
        return (yield from self._become(wanted))

    def _plan(self, _request: Request) -> Work:
        yield from ()
        _, wanted = self._filed()
        return Answer(report.plan(plan(self._domains, wanted)))

    def _down(self, _request: Request) -> Work:
        self.disposables.clear()
        answer = yield from self._become(Domains({}))
        self.policy, self.leaving = None, True
        return answer

    def _restart(self, request: Request) -> Work:
        name = self._domains.named(request.text("domain")).name
        self.journal.add(name, "restart")
        return (yield from self._become(self._domains, renew=frozenset({name})))

    def _status(self, _request: Request) -> Work:
        yield from ()
        states, problems = said.states(self.deployment), said.problems(self.deployment)
        reports = said.reports(self.deployment)
        return Answer(report.status(self._domains, states, problems, reports))

    def _run(self, request: Request) -> Work:
        name = self._domains.named(request.text("domain")).name
        disposable = request.flag("disposable")
        if disposable:
            taken = {d.qid for d in self._domains if d.disposable}
            dispid = self.numbers.dispid(taken)
            wanted, copy = self._domains.with_disposable(name, dispid)
            name = copy.name
            self.disposables.add(name)
            answer = yield from self._tried(self._become(wanted))
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
        text = amend.relinked(*self._filed(), domain.name, value)
        return (yield from self._enforce(self._file(), text))

    def _firewall(self, request: Request) -> Work:
        domain = self._domains.named(request.text("domain"))
        now, words = int(time.time()), request.words("rule")
        number = request.maybe_number("number")
        action = request.text("action")
        if action == "list":
            return Answer(report.rules(domain, now=now))
        text = amend.changed(
            self._text_with(domain), domain, action, words, number=number, now=now
        )
        return (yield from self._enforce(self._file(), text))

    def _filed(self) -> tuple[str, Domains]:
        file = self._file()
        text = text_of(file)
        return text, self._read(text, file)

    def _text_with(self, domain: Domain) -> str:
        """Return the text of the file, if a rule has the same number there."""
        text, filed = self._filed()
        if filed.named(domain.name).policy == domain.policy:
            return text
        what = "the policy file has other rules by now"
        raise amend.AmendError(f"{domain.name}: {what}, `ravelin apply` comes first")

    def _explain(self, request: Request) -> Work:
        yield from ()
        proto, where = request.maybe_text("proto"), request.text("destination")
        routes = explain.explain(
            self._domains,
            request.text("domain"),
            explain.question(proto, where),
            names=said.names(self.deployment.databases),
            now=int(time.time()),
        )
        return Answer(report.explanation(routes))

    def _log(self, _request: Request) -> Work:
        yield from ()
        return Answer(self.journal.data())

# SPDX-License-Identifier: GPL-2.0-or-later
"""The controller's one loop: the command's requests, the agents, the clock."""

import logging
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from selectors import EVENT_READ, BaseSelector

from controller import keys
from controller.admin import Exit, Failure, Progress, Reply, Request, only_looks
from controller.admin_server import AdminServer
from controller.domains import Domains
from controller.handle import Handler
from controller.jobs import Jobs
from controller.observe import Observer
from controller.supervise import Supervisor
from controller.watch import Watcher

log = logging.getLogger(__name__)

CHUNK = 64
HOLD_WITHIN = 10.0  # seconds from making a disposable to the start of its command
LOOK_EVERY = 5.0  # seconds between two looks for domains that somebody ended
LONGEST = 86400.0  # seconds; epoll_wait(2) takes no more than 24 days


class Daemon:
    """Serves until ``down``, SIGTERM or SIGINT; every domain has stopped then.

    ``look`` is called now and then, to start again what has ended by itself.
    """

    def __init__(  # noqa: PLR0913 - all that a daemon serves
        self,
        selector: BaseSelector,
        handler: Handler,
        supervisor: Supervisor,
        path: Path,
        *,
        look: Callable[[], None],
        watch: Watcher,
    ) -> None:
        self._selector = selector
        self._handler = handler
        self._supervisor = supervisor
        self._watch = watch
        self._observer = Observer(handler.deployment, handler.journal)
        self._jobs = Jobs()
        self._look = look
        self._server = AdminServer(selector, path, self._asked)
        self._held: set[str] = set()
        self._hold_until: dict[str, float] = {}
        self._looked_at = time.monotonic()
        # Of which domains, at which second, the next one is when; asked all the time.
        self._expiry: tuple[Domains, int, int | None] = Domains({}), 0, None
        self._healing = self._ending = self._rolling_back = False

    def run(self) -> None:
        """Serve."""
        with ExitStack() as at_the_end:
            at_the_end.callback(self._server.close)
            at_the_end.callback(self._watch.close)
            self._listen_to_signals(at_the_end)
            while not self._handler.leaving or self._jobs:
                for key, mask in self._selector.select(self._patience()):
                    key.data(mask)
                self._supervisor.tick()
                self._heal(urgent=self._observer.look())
                self._expire()
                self._end_disposables()
                self._end_trial()
                self._jobs.go_on()
                self._watch.look(busy=self._jobs.changing)
            self._observer.look()

    def _asked(self, request: Request, tell: Callable[[Reply], None]) -> None:
        if self._ending:
            tell(Failure(Exit.NOT_ENFORCED, "the daemon is about to end"))
            return
        self._jobs.add(
            self._handler.handle(request),
            tell,
            beside=only_looks(request),
            urgent=request.verb == "down",
        )

    def _listen_to_signals(self, at_the_end: ExitStack) -> None:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            at_the_end.enter_context(end).settimeout(0)
        before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        at_the_end.callback(signal.set_wakeup_fd, before)
        for number in (signal.SIGTERM, signal.SIGINT):
            at_the_end.callback(signal.signal, number, signal.getsignal(number))
            signal.signal(number, lambda *_: None)

        def stayed(reply: Reply) -> None:
            if isinstance(reply, Failure):
                log.error("not all is down: %s", reply.text)
                self._ending = False  # so that somebody can try again

        def leave(_mask: int) -> None:
            if {signal.SIGTERM, signal.SIGINT} & {*ours.recv(CHUNK)}:
                self._asked(Request("down"), stayed)
                self._ending = True

        self._selector.register(ours, EVENT_READ, leave)
        at_the_end.callback(self._selector.unregister, ours)

    def _patience(self) -> float | None:
        times = [
            self._supervisor.next_deadline(),
            self._jobs.deadline(),
            self._watch.deadline(),
            *self._hold_until.values(),
        ]
        if not self._rolling_back:
            times.append(self._handler.trial.deadline)
        waits = [at - time.monotonic() for at in times if at is not None]
        expiry = self._next_expiry()
        if expiry is not None:
            waits.append(expiry - time.time())
        return max(0.0, min(*waits, LONGEST)) if waits else None

    def _next_expiry(self) -> int | None:
        deployment = self._handler.deployment
        domains, filled_at = deployment.domains, deployment.filled_at
        if self._expiry[0] is not domains or self._expiry[1] != filled_at:
            # From when the rules were right: what expired since is still to be done.
            expiry = keys.next_expiry(domains, now=filled_at)
            self._expiry = domains, filled_at, expiry
        return self._expiry[2]

    def _expire(self) -> None:
        now, expiry = time.time(), self._next_expiry()
        # A clock that was ahead, and is put right, has not expired anything.
        was_ahead = now < self._handler.deployment.filled_at
        if was_ahead or (expiry is not None and expiry <= now):
            self._handler.expire()

    def _heal(self, *, urgent: bool) -> None:
        """Look for domains that are gone: when an agent ended, and now and then."""
        now = time.monotonic()
        if self._healing or not (urgent or self._looked_at + LOOK_EVERY <= now):
            return
        self._looked_at = now
        self._look()
        if not self._jobs.changing and self._handler.deployment.vanished():
            self._healing = True
            self._jobs.add(self._handler.heal(), self._healed)

    def _healed(self, reply: Reply) -> None:
        if isinstance(reply, Failure):
            log.error("not healed: %s", reply.text)
        if not isinstance(reply, Progress):
            self._healing = False

    def _end_trial(self) -> None:
        """Put back what was in force, when nobody has confirmed a change in time."""
        deadline = self._handler.trial.deadline
        if deadline is None or self._rolling_back or deadline > time.monotonic():
            return

        def rolled_back(reply: Reply) -> None:
            if isinstance(reply, Failure):
                log.error("not rolled back: %s", reply.text)
            if not isinstance(reply, Progress):
                self._rolling_back = False

        self._rolling_back = True
        self._jobs.add(self._handler.roll_back(), rolled_back)

    def _end_disposables(self) -> None:
        """Discard those whose command has ended, or never began."""
        now, held = time.monotonic(), self._server.held()
        known = self._handler.disposables
        self._held &= known
        for name in self._hold_until.keys() - known:
            del self._hold_until[name]
        for name in tuple(known):
            if name in held:
                self._held.add(name)
                self._hold_until.pop(name, None)
                continue
            if not self._jobs.changing:  # else it may still be in the making
                self._hold_until.setdefault(name, now + HOLD_WITHIN)
            if name in self._held or self._hold_until.get(name, now + 1) <= now:
                self._held.discard(name)
                self._hold_until.pop(name, None)
                self._jobs.add(self._handler.discard(name), lambda _: None)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Watch, decide, apply: the one loop of every agent.

It is level-triggered.  An event only says *look again*; what is applied is
computed from what is true now, so events may come twice, late, out of order or
not at all (a reconnect, an overrun) and the result is the same.
"""

import logging
import math
import selectors
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from agent import keys
from agent.crowd import Crowd
from agent.cut import Cutter
from agent.database import Broken, Database
from agent.enforce import Enforcer
from agent.leases import Leases
from agent.names import Names
from agent.network import Network
from agent.personality import Dns, Driver, Personality
from agent.ports import FirewallError, Links, NetlinkError
from agent.programs import NOT_COMMITTED, Programs
from agent.signals import Signals
from agent.surroundings import facts
from agent.systemd import Notifier
from rules.facts import Facts, Gateway
from rules.model import Address, ClientPolicy

log = logging.getLogger(__name__)

Source = Links | Driver | Leases | Names | Signals | int

RETRY = 0.5  # seconds between two attempts to reach QubesDB or the kernel
INSPECT = 2.0  # seconds between two looks whether the rules are still ours


@dataclass(slots=True)
class Agent:
    """One agent; `run` returns when it is told to stop, leaving all in place."""

    personality: Personality
    database: Database
    links: Links
    enforcer: Enforcer
    network: Network
    cutter: Cutter
    crowd: Crowd
    names: Names
    leases: Leases
    notifier: Notifier
    programs: Programs = field(default_factory=Programs)
    clock: Callable[[], float] = time.monotonic
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    _now: Facts = field(default_factory=Facts)
    _dns: Dns = field(default_factory=lambda: Dns({}))
    _db_fd: int = -1
    _reach: float = 0.0  # when to try QubesDB again
    _again: float = 0.0  # when to try the kernel again
    _inspect: float = 0.0  # when to look whether the rules are still ours
    _begun: bool = False
    _look: bool = True
    _due: bool = True
    _stopping: bool = False
    _ready: bool = False
    _waiting: int = 0
    _lists: dict[Address, ClientPolicy] = field(default_factory=dict)
    _changed: set[Address] = field(default_factory=set)

    def run(self) -> None:
        """Enforce until SIGTERM or SIGINT; SIGHUP reads everything anew."""
        signals = Signals(signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        self._listen(signals)
        patience: float | None = 0
        while not self._stopping:
            busy = False
            try:
                for ready, _ in self._selector.select(patience):
                    ready.data()
                busy = self._settle()
            except Broken as error:
                self._lost(error)
            except (NetlinkError, FirewallError) as error:
                # A device may vanish between two looks; look again.
                log.warning("%s", error)
                self._look, self._again = True, self.clock() + RETRY
            self.notifier.alive()
            # What QubesDB sent together with an answer wakes nobody.
            patience = 0 if busy else self._patience()
        signals.close()

    def _listen(self, signals: Signals) -> None:
        def woken() -> None:
            for number in signals.take():
                if number == signal.SIGHUP:
                    self.notifier.reloading()
                    self._lost(ConnectionError("reading everything anew"))
                    self._reach, self._ready = 0.0, False
                else:
                    self._stopping = True

        watched = self.personality.resolvers.watched().items()
        told = (self.links, self._driver, self.leases)
        sources: list[tuple[Source, Callable[[], None]]] = [
            *((signals, woken), (self.names, lambda: None)),
            *((fd, partial(self._heard, handle)) for fd, handle in watched),
            *((x, partial(self._heard, x.handle)) for x in told if x.fileno() >= 0),
        ]
        for source, handle in sources:
            self._selector.register(source, selectors.EVENT_READ, handle)

    def _patience(self) -> float | None:
        """Return how long to wait for events, in seconds; None is for ever."""
        retries = (x for x in (self._reach, self._again, self._inspect) if x)
        others = (self.names.next_deadline(), self._driver.next_deadline())
        until = min(*others, self.notifier.due, *retries)
        return None if until == math.inf else max(0.0, until - self.clock())

    def _heard(self, handle: Callable[[], bool | None]) -> None:
        self._look |= handle() is not False

    def _settle(self) -> bool:
        """Bring the kernel to what it must be now; return whether it was not.

        What came is taken at once, or it would wake us again and again.
        """
        lists = self._read()
        self._lists.update(lists)
        self._restore()
        if self._driver.next_deadline() <= self.clock():
            self._heard(self._driver.handle)
        news = self.names.handle() or self.names.waiting() != self._waiting
        self._due |= news or self._look or bool(lists)
        if self.clock() < self._again:
            return False
        self._again = 0.0
        if not (self._begun and self._due):
            return False
        # Kept until all of it is done, for a device may vanish half-way.
        if self._look:
            self._see()
            self._look = False
        for address in self.database.settings.known.intersection(self._lists):
            if self.programs.commit(address, self._lists[address]):
                self._changed.add(address)
        self._changed |= self._learn()
        self._apply(self._changed)
        self._changed.clear()
        self._due, self._waiting = False, self.names.waiting()
        if self._db_fd >= 0:
            # Why a list is refused is known before the list counts as handled.
            self._report()
            self.database.acknowledge(self._lists)
            self._lists.clear()
        return True

    def _restore(self) -> None:
        """Take the rules back from whoever else changed them."""
        if not self._begun or self.clock() < self._inspect:
            return
        self._inspect = self.clock() + INSPECT
        self._look |= self.crowd.look(self._now)
        if self.enforcer.restore():
            log.warning("somebody else changed the rules, loading everything anew")
            self.network.unguard()
            self._look = True

    @property
    def _driver(self) -> Driver:
        return self.personality.driver

    def _read(self) -> Mapping[Address, ClientPolicy]:
        """Return the lists that were committed; all of them after a connect."""
        if self._db_fd >= 0:
            changed, lists = self.database.refresh()
            self._look |= changed
            return lists
        if self.clock() < self._reach:
            return {}
        lists = self.database.connect()
        self._db_fd = self.database.db.fileno()
        self._selector.register(self._db_fd, selectors.EVENT_READ, lambda: None)
        self._reach, self._look, self._begun = 0.0, True, True
        log.info("QubesDB: %d lists", len(lists))
        return lists

    def _lost(self, error: Exception) -> None:
        """Go on with what dom0 said last until QubesDB is back."""
        if not self._reach:
            log.warning("QubesDB: %s", error)
        if self._db_fd >= 0:
            self._selector.unregister(self._db_fd)
            self._db_fd = -1
        self.database.db.close()
        self._reach = self.clock() + RETRY

    def _see(self) -> None:
        """Look at the surroundings; keep the programs to the clients there are."""
        settings, held = self.database.settings, self.crowd.held
        for address in self.programs.keep(settings.known):
            # The list may have been committed before there was such a client.
            policy = self.database.lists.get(address, NOT_COMMITTED)
            self.programs.commit(address, policy)
            self._changed.add(address)
        self._dns = self.personality.resolvers.dns(settings.resolvers)
        self._driver.told(settings.words)
        seen = facts(settings, self.links, self._dns, self.personality, held)
        self._now = self._driver.facts(seen)
        if self.personality.kind is not Gateway.ROUTER:
            self._dns = Dns(self._now.dns, tuple(self._now.resolvers))

    def _learn(self) -> frozenset[Address]:
        """Take what names mean now; return the addresses that concerns."""
        self.names.use(self._dns.own)
        self.names.want(self.programs.hosts())
        resolvers = frozenset((*self._dns.virtual, *self._dns.virtual.values()))
        return self.programs.learn(self.names.answers(), resolvers)

    def _apply(self, changed: Iterable[Address]) -> None:
        course, before = self.personality.course, self.personality.course.state
        if course.advance(self._now):
            log.info("%s: %s -> %s", course.name, before, course.state)
            self.names.hurry()
        allowed = course.allowed
        newcomers = self.network.newcomers(self._now)
        self.network.guard(self._now)
        self.enforcer.enforce(allowed, self._now, self.programs)
        self.cutter.forget(newcomers)
        self.cutter.cut(allowed, self._now, self.programs, changed)
        gateways = self.database.settings.vif_gateways
        self.network.apply(allowed, self._now, gateways)
        self.leases.serve(self._now, gateways)
        self._driver.follow(course.state, self._now)

    def _report(self) -> None:
        state, clients = self.personality.course.state, len(self._now.clients)
        rules = (self.enforcer.generation, self.enforcer.digest())
        status = keys.status(*rules, state, clients=clients, waiting=self._waiting)
        errors = {**self.programs.errors(), **self.enforcer.errors()}
        trouble = self._driver.trouble() or self.crowd.trouble
        said = keys.said(trouble, self._driver.report())
        self.database.report(status, errors, self.programs.resolved(), said)
        if not self._ready:
            self._ready = True
            self.notifier.ready(f"{state}, {clients} clients")

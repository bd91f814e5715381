# SPDX-License-Identifier: GPL-2.0-or-later
"""The driver of a TorVM (`agent.personality.Driver`).

tor is started held: it opens no connection and listens to nobody.  It is let out only
by `follow`, when the kernel enforces a state that carries it, and ended when one does
not.  A client's flows go to tor only once it listens there.
"""

import math
import select
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from rules.facts import Carried, Facts
from rules.model import Address, Family
from rules.virtual_dns import VIRTUAL4, VIRTUAL6
from torvm.carried import families
from torvm.circuits import asked
from torvm.daemon import Daemon
from torvm.doors import SELF, Doors
from torvm.filter import Known
from torvm.given import Given
from torvm.outward import Outward
from torvm.port import GoneError
from torvm.reception import Reception, with_control
from torvm.relays import Relays, of_directories
from torvm.report import report
from torvm.session import Session
from torvm.states import HELD, Progress, Seen, observe
from torvm.trouble import Condition, trouble
from torvm.words import Options, identities, options

PULSE = 5.0  # seconds between two counts of circuits for dom0
ITSELF = {address: address for address in (*VIRTUAL4, *VIRTUAL6)}


class TorDriver:
    """Drives a `Daemon`, and what it gets out by."""

    def __init__(
        self,
        given: Given,
        daemon: Daemon,
        outward: Outward,
        clock: Callable[[], float] = time.monotonic,
        reception: Reception | None = None,
    ) -> None:
        self._given, self._clock = given, clock
        self._daemon, self._outward = daemon, outward
        self._options = Options()
        self._doors = Doors()
        self._session: Session | None = None
        self._uplink = False
        self._served: Mapping[Address, str] | None = None
        self._asked, self._begun, self._entered = "", False, False
        self._pulse, self._open = math.inf, 0
        self._reception = reception or Reception(clock)
        self._ready = select.epoll()
        for each in (daemon, outward, self._reception):
            self._ready.register(each, select.EPOLLIN)

    def fileno(self) -> int:
        """Return what is readable when tor or a transport said something."""
        return self._ready.fileno()

    def next_deadline(self) -> float:
        """Return when to call `handle` at the latest."""
        if not self._begun:
            return math.inf
        again = math.inf if self._session is None else self._session.again
        others = (self._daemon, self._outward, self._reception)
        return min(self._pulse, again, *(each.next_deadline() for each in others))

    def handle(self) -> bool:
        """Take what came, or is due; return whether the facts may be others."""
        now = self._clock()
        changed = self._outward.handle(ready=self._is_ready)
        said = self._daemon.handle()
        changed |= self._met()
        if self._session is not None:
            # Somebody may have been moved, and what was to follow not come about.
            self._session.doors = self._doors
            changed |= self._try(lambda s: sum(s.hear(each, now) for each in said))
            self._doors = self._session.doors
            changed |= self._session.due(now) | self._beats(now)
        changed |= self._answer()
        if self._begun:
            self._daemon.start()
        return changed

    def told(self, words: Mapping[str, str]) -> None:
        """Take options and requests; those of before this agent are served."""
        self._options = options(words)
        wanted, question = identities(words), asked(words)
        if self._served is None:
            self._served, self._asked = wanted, question.serial
            self._given = self._given.through(self._options.proxy)
            if not self._given.refused:
                # Held, it may run before any rule stands.
                self._begun = True
                self._daemon.begin(self._given.of_tor)
                self._outward.begin(self._given)
        for address, serial in wanted.items():
            if self._served.get(address) != serial:
                self._move(address)
        self._served = wanted
        if question.serial != self._asked:
            self._asked = question.serial
            self._try(lambda session: session.ask(question))

    def facts(self, facts: Facts) -> Facts:
        """Return the facts with what tor may send, and where clients end."""
        there = {client.index for client in facts.clients}
        ports = self._doors.redirects
        asking = self._options.control and not self._given.refused
        self._reception.serve(facts.clients if asking else ())
        ports = {**ports, **with_control(ports, self._reception.served)}
        self._uplink = bool(families(facts))
        self._outward.look(facts)
        return replace(
            facts,
            carried=frozenset(self._carried()),
            redirects={index: ports[index] for index in ports.keys() & there},
            dns=ITSELF,
            resolvers=frozenset({SELF}),
        )

    def observe(self, facts: Facts) -> Seen:
        """Return what the facts and tor's progress mean for the table."""
        if self._given.refused:
            return observe(facts, Progress.HOPELESS)
        return observe(facts, Progress.READY if self._is_ready else Progress.TRYING)

    def follow(self, state: str, facts: Facts) -> None:
        """Start tor, let it out or hold it, and open the doors of the clients."""
        if self._given.refused:
            return
        doors = self._doors.follow(facts.clients, facts.here, socks=self._options.socks)
        self._doors = doors = self._reception.move(doors, facts.redirects)
        held = state in HELD or self._waits_for() != ""
        out: frozenset[Family] = frozenset() if held else families(facts)
        if state not in HELD:
            self._outward.ask()

        def lead(session: Session) -> None:
            session.doors = doors
            session.lead(out, self._outward.speaking, self._clock())
            self._doors = session.doors

        self._try(lead)

    def trouble(self) -> str:
        """Return what keeps it from working, in a line for people, or nothing."""
        session = self._session
        known = Condition(
            refused=self._given.refused,
            uplink=self._uplink,
            running=session is not None,
            ended=self._daemon.ended,
            silent=self._daemon.silent,
            large=self._daemon.large,
            transport=self._outward.trouble,
            waits_for=self._waits_for(),
        )
        if session is None:
            return trouble(known)
        return trouble(
            replace(
                known,
                order=session.refusal,
                proxy=self._given.trouble(session.proxy),
                clock=session.clock,
                bootstrap=session.bootstrap,
                live=session.live,
                shared=bool(session.usage.shared()),
            )
        )

    def report(self) -> Mapping[str, str]:
        """Return how far tor is, and what was asked for."""
        found = report(self._session, self._doors, self._served or {}, self._open)
        return {**found, **self._reception.report()}

    def _answer(self) -> bool:
        known = Known() if self._session is None else self._session.known
        speaking = self._doors.in_force if self._options.socks else ()
        return self._reception.handle(known, speaking)

    def _met(self) -> bool:
        """Begin a session with a tor that is new, end one with a tor that is gone."""
        tor = self._daemon.tor
        if tor is (self._session.tor if self._session else None):
            return False
        self._session, self._pulse = None, math.inf
        self._doors = self._doors.begin(frozenset())
        if tor is not None:
            network = Relays(of_directories(self._given.network))
            # Only once: what we end ourselves begins where it was.
            forget, self._entered = self._options.forget and not self._entered, True
            self._session = Session(tor, self._doors, forget, network)
            self._pulse = self._clock() + PULSE
            self._try(self._greet)
        return True

    def _greet(self, session: Session) -> None:
        if self._options.relays_only:
            session.tor.look_at_relays()
        session.tor.look_at_circuits()

    def _try(self, act: Callable[[Session], object]) -> bool:
        if self._session is None:
            return False
        try:
            return bool(act(self._session))
        except GoneError:
            self._daemon.lose()
            return True

    def _move(self, address: Address) -> None:
        for client in self._doors.clients:
            if address in client.addresses:
                self._doors = self._doors.move(client)

    @property
    def _is_ready(self) -> bool:
        return self._session is not None and self._session.ready

    def _carried(self) -> Iterator[Carried]:
        known = self._session.relays.places if self._session else frozenset()
        relays = known if self._options.relays_only else None
        return self._outward.carried(self._daemon.uid, relays)

    def _waits_for(self) -> str:
        """Return what must be there before tor is let out, or nothing."""
        if waits := self._outward.waits_for():
            return waits
        strict = self._options.relays_only and self._outward.by_itself
        lacking = strict and not (self._session and self._session.relays.places)
        return "the list of relays" if lacking else ""

    def _beats(self, now: float) -> bool:
        if now < self._pulse or self._session is None:
            return False
        before = (self._open, self._session.answered)
        self._open, self._pulse = self._session.usage.open, now + PULSE
        self._try(lambda session: session.tor.look_at_self())
        # Read by then, and nobody else's business.
        self._session.answered = None
        return before != (self._open, None)

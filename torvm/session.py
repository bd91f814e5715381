# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known of the tor that runs, and what it was told.

A tor that is started anew is another session, of which nothing is known yet.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from rules.facts import Client
from rules.model import Address, Family
from torvm.circuits import Answer
from torvm.doors import Doors
from torvm.filter import Known
from torvm.lingering import Lingering
from torvm.listeners import Listener
from torvm.port import LISTEN, RELEASE, TorBackend
from torvm.relays import Relays
from torvm.said import (
    Bootstrap,
    ByProxy,
    Circuit,
    CircuitsSeen,
    Clock,
    Consensus,
    CountriesSeen,
    Done,
    Established,
    Listening,
    Live,
    Ready,
    Reconfigured,
    Refused,
    RelaysSeen,
    Said,
    Stream,
    StreamsLost,
)
from torvm.usage import Usage

RETRY = 1.0  # seconds before tor is told again what it refused
JUMPED = Clock(None)
OfItself = Ready | Bootstrap | ByProxy | Established | Live | Clock
COMPLETE = 100  # percent
TOLD = (LISTEN, RELEASE)
OF_LISTENERS = frozenset({"transport", "dnsport", "socksport", "disablenetwork"})


@dataclass(slots=True)
class Session:
    """One tor from its greeting to its end.  ``moment`` is `time.monotonic`.

    ``forget``: it enters the network elsewhere than the last time.
    """

    tor: TorBackend
    doors: Doors
    forget: bool = False
    relays: Relays = field(default_factory=Relays)
    usage: Usage = field(default_factory=Usage)
    bootstrap: Bootstrap = field(default_factory=lambda: Bootstrap(0, ""))
    version: str = ""
    clock: Clock | None = None
    refusal: str = ""
    proxy: str = ""
    live: bool = True
    again: float = math.inf
    answer: Answer | None = None
    answered: Answer | None = None
    _met: bool = False
    _circuits: bool = False
    _out: frozenset[Family] | None = None
    _asked: frozenset[Listener] | None = None
    _spoken: Mapping[str, int] = field(default_factory=dict)
    _orders: int = 0
    _lingering: Lingering = field(default_factory=Lingering)
    _ending: bool = False

    @property
    def ready(self) -> bool:
        """Whether clients can be carried."""
        return self._circuits and self.live and bool(self._out)

    @property
    def known(self) -> Known:
        """What every client may know of it."""
        return Known(self.version, self.bootstrap.progress, self.ready)

    def lead(
        self, families: frozenset[Family], speaking: Mapping[str, int], moment: float
    ) -> None:
        """Let tor out by uplinks of these IP versions, or hold it if there is none.

        ``speaking`` are the ports where the transports of bridges are spoken.
        """
        if self._ending:
            return
        if speaking != self._spoken:
            self._spoken = speaking
            self.tor.transports(speaking)
        if families != self._out:
            self._out = families
            if families:
                self._orders += 1
                self.tor.release(families)
                self.tor.look_at_self()
            elif self._lingering.places:
                self._end()
            else:
                self._circuits = False
                self.tor.hold()
        if not families or self.again != math.inf:
            return
        self._lingering = self._lingering.follow(self.doors.wanted, moment)
        wanted = self.doors.wanted | self._lingering.places
        if wanted != self._asked:
            self._asked = wanted
            self._orders += 1
            self.tor.listen(wanted)

    def _end(self) -> None:
        """End a tor that has DNSPorts and is to close them."""
        self._circuits = False
        self.doors = self.doors.opened(frozenset())
        if not self._ending:
            self._ending = True
            self.tor.halt()

    def hear(self, said: Said, moment: float) -> bool:
        """Take what tor said; return whether the facts may be others."""
        changed = False
        match said:
            case Stream() | StreamsLost() | Circuit():
                self.usage.take(said, self._whose)
            case Done() | Refused():
                changed = self._obeyed(said, moment)
            case Listening(places):
                changed = self._listens(places, moment)
            case Reconfigured(options):
                if options & OF_LISTENERS:
                    self.tor.look_at_listeners()
            case Consensus():
                self.tor.look_at_relays()
            case RelaysSeen(built_in, listed):
                before = self.relays.places
                self.relays = self.relays.learned(built_in, listed)
                changed = self.relays.places != before
            case CircuitsSeen() | CountriesSeen():
                changed = self._looked(said)
            case Ready() | Bootstrap() | ByProxy() | Established() | Live() | Clock():
                changed = self._is_well(said, moment)
        return changed

    def due(self, moment: float) -> bool:
        """Return whether it is time to tell tor again what it refused."""
        if moment < self.again:
            return False
        self.again, self._asked = math.inf, None
        return True

    def ask(self, answer: Answer) -> None:
        """Begin to find out who uses which circuit."""
        self.answer = answer
        self.tor.look_at_circuits()

    def _is_well(self, said: OfItself, moment: float) -> bool:
        before = (self.ready, self.bootstrap, self.proxy, self.clock, self.live)
        match said:
            case Ready(version, progress, circuits, listening):
                self.version, self._circuits = version, circuits
                self._meet(listening, moment)
                if progress != self.bootstrap.progress:
                    self.bootstrap = Bootstrap(progress, "")
            case Bootstrap():
                if said.progress > self.bootstrap.progress:
                    self.proxy = ""
                self.bootstrap = said
                if said.progress == COMPLETE:
                    self.clock = None
            case ByProxy(why):
                self.proxy = why
            case Established(circuits):
                self._circuits, self.proxy = circuits, ""
                # After a jump tor builds circuits anew, and says nothing of 100 %.
                jumped = circuits and self.clock == JUMPED
                self.clock = None if jumped else self.clock
            case Live(live):
                self.live = live
            case Clock():
                self.clock = said
        now = (self.ready, self.bootstrap, self.proxy, self.clock, self.live)
        return before != now

    def _meet(self, listening: frozenset[Listener], moment: float) -> None:
        if self._met:
            return
        self._met = True
        self.doors = self.doors.begin(listening)
        self._lingering = Lingering().follow(listening, moment)
        # One that listens already is let out, and one before us had it do so.
        if self.forget and not listening:
            self.tor.forget_guards()

    def _obeyed(self, said: Done | Refused, moment: float) -> bool:
        if said.what in TOLD:
            self._orders -= 1
        match said:
            case Done():
                self.refusal = ""
            case Refused(reason=reason):
                self.refusal = reason
                # Of listeners that it refuses as a whole tor has closed some.
                self.again = moment + RETRY
        if said.what == LISTEN:
            self.tor.look_at_listeners()
        return bool(self.refusal)

    def _listens(self, places: frozenset[Listener], moment: float) -> bool:
        before = self.doors
        self.doors = before.opened(places)
        if self._lingering.lost(before.open, places):
            self._end()
            return True
        lacking = self._asked is not None and not self._asked <= places
        if lacking and not self._orders and self.again == math.inf:
            # Somebody else told tor something, or made it read its file again.
            self.again, self._out, self._spoken = moment + RETRY, None, {}
        return before.in_force != self.doors.in_force or before.open != places

    def _looked(self, said: CircuitsSeen | CountriesSeen) -> bool:
        match said:
            case CircuitsSeen(circuits):
                self.usage.follow(circuits)
                if self.answer is None:
                    return False
                self.answer = self.answer.seen(circuits)
                if self.answer.relays:
                    self.tor.look_at_countries(self.answer.relays)
                    return False
                self.answered, self.answer = self.answer, None
                return True
            case CountriesSeen(countries, addresses):
                if self.answer is not None:
                    self.answered = self.answer.placed(countries, addresses)
                    self.answer = None
                return True

    def _whose(self, address: Address) -> Client | None:
        return next((c for c in self.doors.clients if address in c.addresses), None)

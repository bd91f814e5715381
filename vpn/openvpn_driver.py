# SPDX-License-Identifier: GPL-2.0-or-later
"""The driver of the OpenVPN daemon: `agent.personality.Driver`.

The daemon holds before each connection, and is released only after the kernel
lets it reach the one address that it is then told.  It has no rights: the
device is made for it, and addresses, routes and resolvers are set by the agent
from what the server pushed.
"""

import logging
import math
import select
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from rules.facts import Facts, Tunnel
from rules.model import Address
from vpn import states
from vpn.mtu import path_mtu
from vpn.openvpn_attempts import Attempts
from vpn.openvpn_choice import Choice, said
from vpn.openvpn_daemon import Daemon
from vpn.openvpn_profile import Profile
from vpn.openvpn_session import Outcome
from vpn.openvpn_trouble import HANGS, NOTHING, Trouble, of_attempt
from vpn.openvpn_tunnel import (
    overhead_of,
    resolvers_of,
    room,
    tunnel_of,
    with_tunnel,
)
from vpn.probe import Probe
from vpn.states import Progress

log = logging.getLogger(__name__)

HANDSHAKE = 15.0  # seconds that TLS may take once the server answered
GRACE = 10.0  # seconds until a daemon that does not do as it is told is left


class OpenVpn:
    """One tunnel.  ``progress`` is what `vpn.states.observe` asks for."""

    def __init__(
        self,
        profile: Profile,
        daemon: Daemon,
        choice: Choice,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._profile = profile
        self._daemon = daemon
        self._choice = choice
        self._clock = clock
        self._begun = math.inf  # when the daemon was released
        self._leave = math.inf  # when to leave it, if it does not begin anew
        self._trouble = NOTHING
        self._probe = Probe(clock)
        self._named: tuple[Address, ...] = ()  # the resolvers in the tunnel
        self.progress = Progress.TRYING
        self._ready = select.epoll()
        for each in (daemon, choice, self._probe):
            self._ready.register(each.fileno(), select.EPOLLIN)

    def fileno(self) -> int:
        """Return what is readable when the daemon or a resolver said something."""
        return self._ready.fileno()

    def next_deadline(self) -> float:
        """Return when the attempt has taken too long, or the next is due."""
        others = (self._choice.next_deadline(), self._probe.next_deadline())
        return min(self._patience(), self._leave, *others)

    def told(self, words: Mapping[str, str]) -> None:
        """Listen to nothing."""

    def handle(self) -> bool:
        """Take what came; return whether the facts or the next step are others."""
        before = self._view()
        news = self._choice.handle()
        for outcome in self._daemon.handle():
            self._settle(outcome)
        if self._probe.handle():
            self._proven()
        self._expire()
        self._next()
        return news or self._view() != before

    def facts(self, facts: Facts) -> Facts:
        """Return the facts with the one server, the tunnel, and its resolvers."""
        self._choice.look(facts)
        if self._daemon.lost_its_device():
            self._over(Attempts.failed)
        self._next()
        self._named, tunnel = (), self._tunnel()
        target, session = self._choice.target, self._daemon.session
        if tunnel is not None and target is not None and session is not None:
            self._named = resolvers_of(session.pushed, facts, target)
            if not self._named:  # nobody to ask: that the server answered must do
                self._proven()
        pinned = self._choice.pinned(self._daemon.uid)
        carried = self._choice.carried() | pinned
        return with_tunnel(facts, carried, tunnel, self._named)

    def follow(self, state: str, facts: Facts) -> None:
        """Go one step on, now that the kernel lets the daemon reach its server."""
        if state == states.Tunnel.DOWN.value:
            self._rest()
            return
        self._choice.ask()
        target = self._choice.target
        if target is None or not self._choice.pinned(self._daemon.uid) <= facts.carried:
            return
        session = self._daemon.session
        if session is None:
            if self._daemon.waiting:
                self._daemon.start()
                self._leave = self._clock() + GRACE
        elif session.held:
            self._daemon.release()
            self._begun, self._leave = self._clock(), math.inf
        elif session.asked is not None:
            self._daemon.connect(target)
        elif session.connected and self.progress is Progress.TRYING:
            self._probe.begin(self._named)

    def trouble(self) -> str:
        """Return why there is no tunnel, or no names in it, or nothing."""
        if self.progress is Progress.PROVEN:
            missing = "the server named no resolver: names are not found"
            return "" if self._named else missing
        return self._choice.lacking or self._trouble.text

    def report(self) -> Mapping[str, str]:
        """Return the server, what it sent and got in bytes, and the cipher."""
        session, target = self._daemon.session, self._choice.target
        if session is None or target is None:
            return {}
        counted = session.carried
        words = {"rx": str(counted.received), "tx": str(counted.sent)}
        words["cipher"] = session.cipher
        words["server"] = words["summary"] = said(target)
        return {key: word for key, word in words.items() if word}

    def _view(self) -> tuple[object, ...]:
        """Return all that facts, steps and what people are told depend on."""
        session, choice = self._daemon.session, self._choice
        seen = (self.progress, self._trouble, choice.target, choice.trouble)
        if session is None:
            return (*seen, self._daemon.waiting)
        waits = (session.held, session.asked, session.connected)
        return (*seen, *waits, session.pushed, session.cipher, session.carried)

    def _tunnel(self) -> Tunnel | None:
        session, device = self._daemon.session, self._daemon.device
        target = self._choice.target
        if session is None or device is None or target is None:
            return None
        if not session.connected:
            return None
        return tunnel_of(
            (device.name, device.index),
            session.pushed,
            room(target, path_mtu(target)),
            overhead_of(self._profile, session.cipher),
        )

    def _settle(self, outcome: Outcome) -> None:
        match outcome:
            case Outcome.CONNECTED:
                self._connected()
            case Outcome.DOWN:
                self._probe.stop()
                self.progress = Progress.TRYING
            case Outcome.ENDED:
                self._over(Attempts.failed)
            case Outcome.REJECTED:
                self._over(Attempts.refused)
                # A person may know better, until it is tried again.
                self.progress = Progress.HOPELESS
            case Outcome.HOPELESS:
                self._over(Attempts.failed)
                self._choice.end()
                self._daemon.leave()
                self.progress = Progress.HOPELESS

    def _connected(self) -> None:
        session = self._daemon.session
        own = session.pushed.own if session is not None else frozenset()
        if why := self._choice.clash(own):
            self._daemon.restart(Trouble(why, 9))
            return
        log.info("openvpn: connected")

    def _proven(self) -> None:
        """Take the tunnel into use: something came back through it."""
        if self.progress is not Progress.PROVEN:
            self._choice.up()
            self._begun, self._trouble = math.inf, NOTHING
            self.progress = Progress.PROVEN

    def _over(self, count: Callable[[Attempts, float], Attempts]) -> None:
        """Count an attempt or a tunnel that is over, and say why it is."""
        self._begun, self._leave = math.inf, math.inf
        self._probe.stop()
        self.progress = Progress.TRYING
        target = self._choice.target
        if target is None:  # nothing was begun, or there is no uplink
            return
        blocks = self._profile.blocks
        why = of_attempt(self._daemon.trouble, blocks, datetime.now(UTC))
        if why.weight:
            self._trouble = replace(why, text=f"{why.text} ({said(target)})")
        log.info("openvpn: %s", why.text or "the tunnel is lost")
        self._choice.over(count)

    def _rest(self) -> None:
        """Have the daemon hold while there is no uplink."""
        session = self._daemon.session
        if session is not None and not session.held and self._choice.target:
            self._daemon.restart(NOTHING)
            self._leave = self._clock() + GRACE
        self._begun, self.progress = math.inf, Progress.TRYING
        self._probe.stop()
        self._choice.rest()

    def _next(self) -> None:
        """Begin the next attempt, if it is due."""
        if self._choice.is_due() and self.progress is Progress.HOPELESS:
            self.progress = Progress.TRYING
        self._choice.choose()

    def _expire(self) -> None:
        """Give up an attempt that takes too long, and a daemon that hangs."""
        now = self._clock()
        if self._patience() <= now:
            self._begun, self._leave = math.inf, now + GRACE
            self._daemon.give_up()
        elif self._leave <= now:
            self._trouble = HANGS
            self._leave = math.inf
            self._daemon.end()

    def _patience(self) -> float:
        session = self._daemon.session
        more = HANDSHAKE if session is not None and session.answered else 0.0
        return self._begun + self._choice.attempts.rotation.patience() + more

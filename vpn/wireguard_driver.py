# SPDX-License-Identifier: GPL-2.0-or-later
"""Keep a WireGuard tunnel to one of a profile's servers.

A server is chosen, the kernel lets its address pass and nothing else, and only
then the device is told (`follow`); when it is given up, the device is told first.
"""

import logging
import math
import select
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from rules.facts import Facts
from vpn.endpoints import Rotation
from vpn.lookup import Lookup
from vpn.probe import Probe
from vpn.states import Progress, Tunnel
from vpn.surroundings import Surroundings, surroundings
from vpn.wireguard_attempt import Attempt, Moments, attempt_at, setting
from vpn.wireguard_device import Device
from vpn.wireguard_facts import clash, fitting, way_to, where, why_not, with_tunnel
from vpn.wireguard_health import Verdict
from vpn.wireguard_profile import Profile

log = logging.getLogger(__name__)

LOOK, LOOK_IN_HURRY = 5.0, 0.5  # seconds between two looks at the counters
MAKE_AGAIN = 2.0  # seconds between two attempts to make a device
FIRST_AGAIN, MOST_AGAIN = 1.0, 60.0  # seconds between two starts of a daemon
RESTING = frozenset({Tunnel.DOWN.value, Tunnel.ERROR.value})


class WireguardDriver:
    """The port `agent.personality.Driver`."""

    def __init__(
        self,
        profile: Profile,
        device: Device,
        clock: Callable[[], float] = time.monotonic,
        lookup: Lookup | None = None,
        probe: Probe | None = None,
    ) -> None:
        self._profile = profile
        self._device = device
        self._clock = clock
        self._lookup = lookup or Lookup(clock=clock)
        self._probe = probe or Probe(clock)
        self._rotation = Rotation(tuple(peer.endpoint for peer in profile.peers))
        self._around = Surroundings()
        self._attempt: Attempt | None = None
        self._mtu = fitting(profile, None)
        self._trouble = self._clash = self._unmade = ""
        self._has_peer = False
        self._at = Moments()
        self._again = FIRST_AGAIN
        self._ready = select.epoll()
        for fd in (device.fileno(), self._lookup.fileno(), self._probe.fileno()):
            if fd >= 0:
                self._ready.register(fd, select.EPOLLIN)
        self._make(clock())

    @property
    def progress(self) -> Progress:
        """What the table is told."""
        if self._clash:
            return Progress.HOPELESS
        return Progress.PROVEN if self._is_proven() else Progress.TRYING

    def fileno(self) -> int:
        """Return what is readable when the device or a resolver said something."""
        return self._ready.fileno()

    def next_deadline(self) -> float:
        """Return when to call `handle` at the latest."""
        return min(
            self._lookup.next_deadline(),
            self._probe.next_deadline(),
            self._at.wake,
            self._at.look if self._device.ready else math.inf,
            self._at.make if self._device.link is None else math.inf,
            self._at.choose if self._may_choose() else math.inf,
        )

    def told(self, words: Mapping[str, str]) -> None:
        """Listen to nothing: all is in the profile."""

    def handle(self) -> bool:
        """Take what came, or is due; return whether the facts may be others."""
        now = self._clock()
        changed = self._device.handle()
        if now >= self._at.wake:
            self._at.wake, changed = math.inf, True
        if found := self._lookup.handle():
            changed = True
            if found.addresses:
                self._rotation = self._rotation.answered(found.name, found.addresses)
            else:
                self._fail(found.problem, now)
        if self._probe.handle() and self._attempt:
            self._attempt = self._attempt.answered(now)
        changed |= self._judge(now)  # sees that it is gone, before it is made again
        if self._device.link is None and now >= self._at.make:
            self._make(now)
        if now >= self._at.look and self._device.ready:
            self._at.look = now + (LOOK if self._is_proven() else LOOK_IN_HURRY)
            self._device.look()
        return self._choose(now) or changed

    def facts(self, facts: Facts) -> Facts:
        """Return the facts with the tunnel, and with the one way to its server."""
        around = surroundings(facts)
        if around.links != self._around.links and self._attempt is not None:
            # Another way out: the tunnel has to be seen to work by that one.
            self._attempt = replace(self._attempt, health=None)
        self._around = around
        self._clash = clash(self._profile, around)
        self._choose(self._clock())
        carried = self._lookup.carried(around)
        if self._attempt is not None and around.ready:
            carried |= {way_to(self._attempt.target, self._device.carrier)}
        return with_tunnel(facts, self._profile, self._device.link, self._mtu, carried)

    def follow(self, state: str, facts: Facts) -> None:
        """Tell the device, now that the kernel enforces this state."""
        if state in RESTING:
            self._rest()
            return
        now = self._clock()
        self._lookup.ask(self._around)
        if not self._device.ready:
            self._start(now)
        attempt = self._attempt
        if attempt and attempt.health is None and self._device.ready and facts.tunnel:
            errors, patience = self._device.errors(), self._rotation.patience()
            self._device.set(setting(self._profile, attempt))
            self._has_peer, probed = True, bool(self._profile.dns)
            self._attempt = attempt.begun(now, patience, probed=probed, errors=errors)
            self._probe.begin(self._profile.dns)
            self._at.look = now + LOOK_IN_HURRY

    def trouble(self) -> str:
        """Return what keeps the tunnel from working, in a line, or nothing."""
        if self._clash or self._is_proven():
            return self._clash
        waiting = "" if self._device.ready else f"{self._device.word} does not run"
        return self._unmade or self._around.lacking or self._trouble or waiting

    def report(self) -> Mapping[str, str]:
        """Return what ``ravelin status`` shows of the tunnel."""
        told = {"by": self._device.word, "mtu": str(self._mtu)}
        if self._attempt is not None:
            told["server"] = told["summary"] = where(self._attempt.target)
        if (peer := self._device.peer) is not None:
            told |= {"rx": str(peer.received), "tx": str(peer.sent)}
        return told

    def _is_proven(self) -> bool:
        return self._attempt is not None and self._attempt.is_proven

    def _may_choose(self) -> bool:
        free = self._attempt is None and not self._lookup.asking
        return free and self._around.ready and not self._clash

    def _choose(self, now: float) -> bool:
        """Choose a server, or a name to ask, if it is time; return whether."""
        if not self._may_choose() or now < self._at.choose:
            return False
        if question := self._rotation.question():
            self._lookup.prepare(question, self._rotation.patience())
        elif target := self._rotation.target():
            written = not isinstance(self._rotation.endpoint.host, str)
            if reason := why_not(self._profile, target, self._around, written=written):
                self._fail(f"{where(target)}: {reason}", now)
                return True
            self._attempt = attempt_at(self._profile, self._rotation, target)
            self._mtu = fitting(self._profile, target)
        return True

    def _fail(self, reason: str, now: float) -> None:
        """Give up a server; the next one is tried after a pause."""
        log.info("%s", reason)
        self._trouble = reason
        self._rotation = self._rotation.failed()
        self._at.choose = now + self._rotation.pause()
        self._rest()

    def _rest(self) -> None:
        """Have no server, and send nothing."""
        self._probe.stop()
        self._lookup.forget()
        self._attempt, self._at.look = None, math.inf
        if self._has_peer and self._device.ready:
            self._device.set(setting(self._profile, None))
        self._has_peer = False

    def _make(self, now: float) -> None:
        """Make the device; the kernel's event says that it is there."""
        self._at.make = now + MAKE_AGAIN
        try:
            self._device.make()
            self._unmade = ""
        except OSError as error:
            self._unmade = str(error)

    def _start(self, now: float) -> None:
        if now < self._at.start:
            self._at.wake = self._at.start
            return
        self._device.start()
        if self._device.ready:
            log.info("started %s", self._device.word)
            self._at.start = now + self._again
            self._again = min(2 * self._again, MOST_AGAIN)

    def _judge(self, now: float) -> bool:
        """Look at the counters; return whether the tunnel is another than before."""
        attempt = self._attempt
        if attempt is None or attempt.health is None:
            return False
        if not self._device.ready or self._device.link is None:
            self._trouble = f"{self._device.word} has ended"
            self._attempt = replace(attempt, health=None)
            return True
        health = attempt.health
        if (peer := self._device.peer) is not None:
            health = health.seen(peer, now)
            if peer.endpoint not in (None, attempt.target):
                self._device.steer(attempt.peer.public, attempt.target)
        self._attempt = replace(attempt, health=health)
        match health.verdict(now, self._device.errors()):
            case Verdict.WAITING:
                return False
            case Verdict.PROVEN:
                self._rotation, self._again = self._rotation.worked(), FIRST_AGAIN
                self._mtu = min(self._mtu, fitting(self._profile, attempt.target))
                if health.is_quiet(now):
                    self._probe.begin(self._profile.dns)
                else:
                    self._probe.stop()
            case (
                Verdict.UNANSWERED
                | Verdict.UNREACHABLE
                | Verdict.EMPTY
                | Verdict.SILENT
            ) as failed:
                self._fail(f"{where(attempt.target)}: {failed.value}", now)
        return True

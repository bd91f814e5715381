# SPDX-License-Identifier: GPL-2.0-or-later
"""The life of one tor: started, found again, heard, and started anew.

A tor outlives its agent.  The next agent finds it by its control socket, whose
name says which configuration it has; one of another configuration is ended.

A name of an onion service that is asked for takes 410 to 490 bytes until tor ends
(addressmap.c; 0.4.9.11), and there is no end to names, so one that has become too
large is ended.  To take the addresses back (AutomapHostsOnResolve off and on) leaves
the names.
"""

import logging
import math
import os
import select
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from agent.berth import Berth
from torvm.port import GoneError, TorBackend
from torvm.proxy import Proxy
from torvm.said import Ready, Said
from torvm.torrc import Torrc, cookie_of

log = logging.getLogger(__name__)

TOR = "/usr/bin/tor"
LOOK = 0.1  # seconds between two looks for the control socket of a new tor
SEEK = 1.0  # seconds between two looks for one that somebody else started
LONGEST = 60.0  # seconds between two starts of one that ends at once
MOST = 6  # doublings until then
SILENCE = 60.0  # seconds that an answer may take; tor has its own work too
LARGEST = 1 << 30  # bytes; two million such names, for which there are addresses

Connect = Callable[[str, str], TorBackend]


class Daemon:
    """What runs, or will.  ``tor`` is there once it has said how it is."""

    def __init__(
        self,
        torrc: Torrc,
        berth: Berth,
        connect: Connect,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tor: TorBackend | None = None
        self.ended = 0
        """How often it ended before it said a word, in a row."""
        self.silent = False
        """Whether one that runs did not answer, and has not answered since."""
        self.large = False
        """Whether one was ended for its size, and there is no other yet."""
        self._torrc = torrc
        self._berth = berth
        self._connect = connect
        self._clock = clock
        self._reached: TorBackend | None = None
        self._stale: TorBackend | None = None
        self._look = math.inf
        self._start = clock()
        self._ready = select.epoll()
        self._ready.register(berth, select.EPOLLIN)

    def fileno(self) -> int:
        """Return the descriptor to wait on, the same for ever."""
        return self._ready.fileno()

    @property
    def uid(self) -> int:
        """The user it runs as."""
        return self._berth.uid

    def begin(self, proxy: Proxy | None) -> None:
        """Look for a tor that goes through ``proxy``, or through none.

        One of another configuration is ended, so this is said before any look.
        """
        self._torrc = replace(self._torrc, proxy=proxy)
        self._look = self._clock()

    @property
    def due(self) -> bool:
        """Whether `start` would start one now."""
        return self._berth.waiting and self._clock() >= self._start

    def next_deadline(self) -> float:
        """Return when to call `handle` at the latest."""
        due = self._start if self._berth.waiting else math.inf
        if self._stale is not None:
            due = min(due, self._stale.waits_since + SILENCE)
        if self._reached is None:
            return min(due, self._look)
        return min(due, self._reached.waits_since + SILENCE)

    def handle(self) -> list[Said]:
        """Take what happened; what tor said before it ended is lost with it."""
        self._berth.handle()
        self._end_stale()
        if self._reached is None and self._clock() >= self._look:
            self._reach()
        if self._reached is None:
            return []
        try:
            said = self._reached.handle()
        except GoneError as error:
            log.warning("tor: %s", error)
            self.lose()
            return []
        if self.tor is None and any(isinstance(each, Ready) for each in said):
            self.tor, self.ended = self._reached, 0
            self.silent = self.large = False
            self._start = self._clock()
        elif self._hangs(self._reached):
            log.warning("tor does not answer")
            # The first time it may be the machine that stood still.
            if self.silent:
                self._berth.end()
            self.silent = True
            self.lose()
        self._weigh(said)
        return said

    def start(self) -> None:
        """Start one if none runs, somebody waits to become it, and it is time."""
        if not self.due:
            return
        self.lose()
        self._start = self._clock() + min(2.0 ** min(self.ended, MOST), LONGEST)
        self.ended += 1
        text = os.memfd_create("torrc")
        try:
            os.write(text, self._torrc.text().encode())
            os.lseek(text, 0, os.SEEK_SET)
            # Without a torrc of the system: this is the whole configuration.
            argv = [
                TOR,
                "--hush",
                "-f",
                "/proc/self/fd/3",
                "--defaults-torrc",
                "/dev/null",
            ]
            # Who went meanwhile comes again, and is told then.
            with suppress(ConnectionError):
                self._berth.start(argv, [text])
        finally:
            os.close(text)
        self._look = self._clock()

    def lose(self) -> None:
        """Take it for gone; if it is not, it is found again."""
        if self._reached is not None:
            self._forget(self._reached)
        self._reached = self.tor = None
        self._look = self._clock()

    def _weigh(self, said: list[Said]) -> None:
        sizes = (each.memory for each in said if isinstance(each, Ready))
        size = max(sizes, default=0)
        if size <= LARGEST or self._reached is None:
            return
        log.warning("tor takes %d MB, and is started anew", size >> 20)
        self.large = True
        with suppress(GoneError):
            self._reached.halt()

    def _reach(self) -> None:
        self._look = self._clock() + (LOOK if self._berth.running else SEEK)
        for path in self._sockets():
            with suppress(OSError):
                found = self._connect(path, cookie_of(path))
                if found.uid != self.uid:
                    log.warning("somebody else than tor listens at its place")
                    found.close()
                elif path == self._torrc.socket:
                    self._reached = found
                    self._ready.register(found, select.EPOLLIN)
                elif self._stale is None:
                    log.info("ending a tor of another configuration")
                    self._stale = found
                    self._ready.register(found, select.EPOLLIN)
                else:
                    found.close()

    def _sockets(self) -> list[str]:
        """Return where a tor may listen; ours last."""
        mine = self._torrc.socket
        others = Path(self._torrc.run).glob("*.control")
        return [str(path) for path in others if str(path) != mine] + [mine]

    def _end_stale(self) -> None:
        if self._stale is None:
            return
        with suppress(GoneError):
            if any(isinstance(each, Ready) for each in self._stale.handle()):
                self._stale.halt()
            if not self._hangs(self._stale):
                return
            self._berth.end()
        self._forget(self._stale)
        self._stale = None

    def _hangs(self, tor: TorBackend) -> bool:
        return self._clock() >= tor.waits_since + SILENCE

    def _forget(self, tor: TorBackend) -> None:
        with suppress(OSError):
            self._ready.unregister(tor)
        tor.close()

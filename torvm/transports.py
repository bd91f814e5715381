# SPDX-License-Identifier: GPL-2.0-or-later
"""A program that speaks transports of bridges, as a user of its own (pt-spec).

tor's uid may send nothing by the uplink then: it talks to this program on the
loopback interface, and this program to the bridges.

One that hangs is a bridge that says nothing, to tor, so the agent asks it itself.
"""

import logging
import math
import os
import re
import select
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from agent import filtered
from agent.berth import Berth
from torvm.answering import Answering
from torvm.pluggable import Program
from torvm.proxy import Proxy

log = logging.getLogger(__name__)

# lyrebird is the name that obfs4proxy has upstream by now.
PATHS: Mapping[Program, tuple[str, ...]] = {
    Program.OBFS4PROXY: ("/usr/bin/lyrebird", "/usr/bin/obfs4proxy"),
    Program.SNOWFLAKE: ("/usr/bin/snowflake-client",),
}
FILTERED = (*filtered.RAVELIN, "transport")
LIMIT = 1 << 16  # bytes that it may say
PAUSE = 2.0  # seconds between two starts
START = 60.0  # seconds until it must have said all that it speaks
MISSED = 2  # answers; the first time it may be the machine that stood still
DONE = b"CMETHODS DONE"
ERRORS = (b"CMETHOD-ERROR", b"ENV-ERROR", b"PROXY-ERROR", b"VERSION-ERROR")

_METHOD = re.compile(
    rb"CMETHOD ([a-z0-9_]{1,32}) socks5 127\.0\.0\.1:([0-9]{1,5})(?: .*)?"
)


class Transports:
    """Speaks ``names``; ``ports`` are where, on 127.0.0.1, none while it cannot."""

    def __init__(
        self,
        program: Program,
        names: frozenset[str],
        berth: Berth,
        state: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.program = program
        self.ports: Mapping[str, int] = {}
        self._problem = ""
        self._hangs = False
        self._names = names
        self._berth = berth
        self._state = state
        self._clock = clock
        self._proxy: Proxy | None = None
        self._start = math.inf
        self._announced = math.inf  # when it must have said all
        self._answering = Answering(clock)
        self._pipe = -1
        self._untrusted = b""
        self._ready = select.epoll()
        for each in (berth, self._answering):
            self._ready.register(each, select.EPOLLIN)

    def fileno(self) -> int:
        """Return the descriptor to wait on, the same for ever."""
        return self._ready.fileno()

    @property
    def uid(self) -> int:
        """The user it runs as."""
        return self._berth.uid

    @property
    def complete(self) -> bool:
        """Whether all of them are spoken."""
        return self.ports.keys() == self._names

    @property
    def trouble(self) -> str:
        """What is wrong with it, or nothing."""
        silent = "the bridges' transport runs, but does not answer"
        return silent if self._hangs else self._problem

    def begin(self, proxy: Proxy | None) -> None:
        """Start it as soon as a launcher waits, to go through a proxy if there is."""
        self._proxy, self._start = proxy, self._clock()
        # One of an agent before us ends by itself, unless it hangs.
        self._berth.end()

    def next_deadline(self) -> float:
        """Return when to call `handle` at the latest."""
        start = self._start if self._berth.waiting else math.inf
        return min(start, self._announced, self._answering.next_deadline())

    def handle(self) -> bool:
        """Take what happened, start it if it must; return whether anything did."""
        before = (self.ports, self.trouble)
        self._berth.handle()
        if not self._berth.running:
            self.ports, self._announced = {}, math.inf
        self._hear()
        self._judge()
        if self._berth.waiting and self._clock() >= self._start:
            self._launch()
        return (self.ports, self.trouble) != before

    def _judge(self) -> None:
        """Find out whether it hangs, and end it if it does."""
        self._answering.look(self.ports.values())
        if self._answering.handle():
            self._hangs = self._answering.missed > 0
            if self._answering.missed >= MISSED:
                self._end()
        elif self._clock() >= self._announced:
            self._announced, self._hangs = self._clock() + START, True
            self._end()

    def _end(self) -> None:
        log.warning("%s does not answer", self.program.value)
        self._berth.end()

    def _launch(self) -> None:
        self._start = self._clock() + PAUSE
        paths = PATHS[self.program]
        found = [path for path in paths if Path(path).exists()]
        if not found:
            self._problem = f"no {' or '.join(paths)} for the bridges' transport"
            return
        self._hush()
        self._untrusted = b""
        self._pipe, theirs = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._ready.register(self._pipe, select.EPOLLIN)
        told = {
            "TOR_PT_MANAGED_TRANSPORT_VER": "1",
            "TOR_PT_CLIENT_TRANSPORTS": ",".join(sorted(self._names)),
            "TOR_PT_STATE_LOCATION": self._state,
            # Nobody after us could find its ports again.
            "TOR_PT_EXIT_ON_STDIN_CLOSE": "1",
        }
        if self._proxy is not None:
            told["TOR_PT_PROXY"] = self._proxy.url
        # What it says on its standard output is for us, not for the log; what it
        # reads is the connection of the berth, which ends with us (agent.launcher).
        argv = ["/bin/sh", "-c", 'exec "$0" "$@" >&3 3>&- <&4 4>&-']
        argv += [*FILTERED, found[0]]
        try:
            with suppress(ConnectionError):
                self._berth.start(argv, [theirs], told)
                self._announced = self._clock() + START
        finally:
            os.close(theirs)

    def _hear(self) -> None:
        if self._pipe < 0:
            return
        # No more at once: who says something without a pause must not keep us here.
        with suppress(BlockingIOError):
            untrusted_data = os.read(self._pipe, LIMIT)
            self._untrusted = (self._untrusted + untrusted_data)[:LIMIT]
            if not untrusted_data:
                self._hush()
        *lines, _ = self._untrusted.split(b"\n")
        found = (_METHOD.fullmatch(untrusted_line) for untrusted_line in lines)
        ports = {m[1].decode(): int(m[2]) for m in found if m}
        spoken = {n: p for n, p in ports.items() if n in self._names and p}
        if self._berth.running:
            self.ports = spoken
        bad = any(untrusted_line.startswith(ERRORS) for untrusted_line in lines)
        self._problem = "the bridges' transport does not start" if bad else ""
        if self._announced < math.inf and (bad or DONE in lines):
            self._announced, self._hangs = math.inf, False

    def _hush(self) -> None:
        if self._pipe >= 0:
            self._ready.unregister(self._pipe)
            os.close(self._pipe)
            self._pipe = -1

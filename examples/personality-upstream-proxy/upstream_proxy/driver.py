# SPDX-License-Identifier: GPL-2.0-or-later
"""The driver of the relay (`agent.personality.Driver`).

The relay has one end of a socket pair and we the other.  It says on it whether
the proxy answers, and it ends when our end closes; so the next agent never
meets a relay that it did not start.
"""

import json
import math
import os
import select
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

from agent.berth import Berth
from rules.facts import Carried, Facts, Redirect, Uid
from rules.internal import INTERNAL
from rules.virtual_dns import VIRTUAL4, VIRTUAL6
from upstream_proxy.config import Config
from upstream_proxy.states import UPSTREAM_PROXY, Progress, Seen, observe

PYTHON = "/usr/bin/python3"
RELAY = Path(__file__).with_name("relay.py")
PORTS = Redirect(tcp=10080, dns=10053)
# The agent asks the relay for the names in rules.
SELF = IPv4Address("127.0.0.1")
ITSELF = {address: address for address in (*VIRTUAL4, *VIRTUAL6)}
TCP = 6
LONGEST = 30.0  # seconds between two starts of a relay that ends at once
HELD = {x.value for x, flows in UPSTREAM_PROXY.allowed.items() if len(flows) == 1}
"""The words for the states in which nothing is carried."""


class UpstreamProxy:
    """Drives one relay; ``config`` is a text if it is refused."""

    def __init__(
        self,
        config: Config | str,
        berth: Berth,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._berth = berth
        self._clock = clock
        self._said: socket.socket | None = None
        self._word = "the relay does not run"
        self._starts = 0
        self._again = 0.0
        self._wanted = False
        self._ready = select.epoll()
        self._ready.register(berth, select.EPOLLIN)

    def fileno(self) -> int:
        """Return what is readable when the relay said something or ended."""
        return self._ready.fileno()

    def next_deadline(self) -> float:
        """Return when to call `handle` at the latest."""
        return self._again if self._wanted and self._berth.waiting else math.inf

    def handle(self) -> bool:
        """Take what came, or is due; return whether the facts may be others."""
        before = self._word
        self._berth.handle()
        if not self._berth.running:
            self._forget()
        self._listen()
        self._start()
        return self._word != before

    def told(self, words: Mapping[str, str]) -> None:
        """Listen to nothing: dom0 has no wishes."""

    def facts(self, facts: Facts) -> Facts:
        """Return the facts with the way to the proxy, and where clients end."""
        if isinstance(self._config, str):
            # Nobody answers there, so names in rules fail rather than wait.
            return replace(facts, dns={}, resolvers=frozenset({SELF}))
        relay = Uid(self._berth.uid)
        return replace(
            facts,
            carried=frozenset({Carried(relay, TCP, self._config.proxy)}),
            redirects={client.index: PORTS for client in facts.clients},
            dns=ITSELF,
            resolvers=frozenset({SELF}),
        )

    def observe(self, facts: Facts) -> Seen:
        """Return what the facts and the relay's word mean for the table."""
        if isinstance(self._config, str):
            return observe(facts, Progress.HOPELESS)
        return observe(facts, Progress.TRYING if self._word else Progress.READY)

    def follow(self, state: str, facts: Facts) -> None:  # noqa: ARG002
        """Start the relay once the kernel lets it reach the proxy."""
        self._wanted = state not in HELD
        self._start()

    def trouble(self) -> str:
        """Return what keeps it from working, in a line for people, or nothing."""
        return self._config if isinstance(self._config, str) else self._word

    def report(self) -> Mapping[str, str]:
        """Return which proxy it is."""
        if isinstance(self._config, str):
            return {}
        address, port = self._config.proxy
        return {"summary": f"{self._config.speech.value} {address} {port}"}

    def _listen(self) -> None:
        """Take the newest word of the relay; it is the cause, or nothing."""
        if self._said is None:
            return
        with suppress(BlockingIOError, ConnectionError):
            # One at a time: a relay that says much must not keep the agent here.
            if untrusted_word := self._said.recv(256):
                text = untrusted_word.decode("ascii", errors="replace")
                self._word = text.removeprefix("up").strip()[:120]
                self._starts = 0

    def _start(self) -> None:
        if isinstance(self._config, str) or not self._wanted:
            return
        if not self._berth.waiting or self._clock() < self._again:
            return
        self._again = self._clock() + min(2.0 ** min(self._starts, 5), LONGEST)
        self._starts += 1
        self._forget()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        told = os.memfd_create("config")
        with theirs, suppress(ConnectionError):  # another launcher will come
            os.write(told, _message(self._config))
            os.lseek(told, 0, os.SEEK_SET)
            argv = [PYTHON, "-I", str(RELAY)]
            self._berth.start(argv, [told, theirs.fileno()])
        os.close(told)
        ours.setblocking(False)  # noqa: FBT003
        self._said = ours
        self._ready.register(ours, select.EPOLLIN)

    def _forget(self) -> None:
        self._word = "the relay does not run"
        if self._said is not None:
            self._ready.unregister(self._said)
            self._said.close()
            self._said = None


def _message(config: Config) -> bytes:
    """Return what the relay reads: JSON, in memory alone."""
    address, port = config.proxy
    words = {
        "speech": config.speech.value,
        "proxy": [str(address), port],
        "login": config.login,
        "resolver": str(config.resolver),
        "virtual": [str(each) for each in ITSELF],
        "internal": sorted(INTERNAL),
        "tcp": PORTS.tcp,
        "dns": PORTS.dns,
        "self": str(SELF),
    }
    return json.dumps(words).encode()

# SPDX-License-Identifier: GPL-2.0-or-later
"""What the driver needs of a tor, in the driver's words.

`torvm.control` stands behind it, and a fake in the tests.  An answer comes
later, among what `handle` returns.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol

from rules.model import Family
from torvm.listeners import Listener
from torvm.said import Said

HOLD, RELEASE, LISTEN = "hold", "release", "listen"
GUARDS, SPEAK = "new guards", "transports"


class GoneError(ConnectionError):
    """tor ended, or says what nobody understands."""


class TorBackend(Protocol):
    """A tor that runs.  No method waits; each may raise `GoneError`."""

    @property
    def uid(self) -> int:
        """The user tor runs as, by the kernel's word."""

    @property
    def waits_since(self) -> float:
        """When the first question without an answer was asked; `math.inf`: none."""

    def fileno(self) -> int:
        """Return the descriptor to wait on."""

    def handle(self) -> list[Said]:
        """Take what tor said since."""

    def hold(self) -> None:
        """Close every connection and every listener; answer: ``HOLD``."""

    def release(self, families: frozenset[Family]) -> None:
        """Let tor out by uplinks of these IP versions; answer: ``RELEASE``."""

    def listen(self, places: Iterable[Listener]) -> None:
        """Listen here and nowhere else; answer: ``LISTEN``."""

    def forget_guards(self) -> None:
        """Choose other relays to enter the network by; answer: ``GUARDS``."""

    def halt(self) -> None:
        """End it; the answer is that it is gone."""

    def transports(self, ports: Mapping[str, int]) -> None:
        """Speak these transports by TCP ports of 127.0.0.1; answer: ``SPEAK``."""

    def look_at_self(self) -> None:
        """Ask how it is; answer: `Ready`, which also comes after the greeting."""

    def look_at_listeners(self) -> None:
        """Ask where it listens; answer: `Listening`."""

    def look_at_circuits(self) -> None:
        """Ask for all circuits; answer: `CircuitsSeen`."""

    def look_at_relays(self) -> None:
        """Ask where relays listen; answer: `RelaysSeen`."""

    def look_at_countries(self, fingerprints: frozenset[str]) -> None:
        """Ask where these relays, one or more, are; answer: `CountriesSeen`."""

    def close(self) -> None:
        """Leave tor alone; it goes on."""

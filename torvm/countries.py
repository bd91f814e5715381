# SPDX-License-Identifier: GPL-2.0-or-later
"""Where relays are, asked of tor one by one.

One question for all would fail as a whole for a relay that has just left the
list (GETINFO, control-spec 3.9).
"""

from collections.abc import Callable, Mapping
from functools import partial

from rules.model import Address
from torvm import heard
from torvm.said import CountriesSeen

Entries = Mapping[str, str]
Get = Callable[[str, Callable[[Entries], None]], None]


class Countries:
    """Asks by ``get``, and hands over the answer once, when all of it is there."""

    def __init__(self, get: Get, done: Callable[[CountriesSeen], None]) -> None:
        self._get = get
        self._done = done
        self._waiting: set[str] = set()
        self._countries: dict[str, str] = {}
        self._addresses: dict[str, Address] = {}

    def ask(self, fingerprints: frozenset[str]) -> None:
        """Begin with one or more; the address of a relay first, then its country."""
        self._waiting = set(fingerprints)
        for fingerprint in fingerprints:
            self._get(f"ns/id/{fingerprint}", partial(self._listed, fingerprint))

    def _listed(self, fingerprint: str, entries: Entries) -> None:
        address = heard.address_of_status("".join(entries.values()))
        if address is None:
            self._finish(fingerprint)
            return
        self._addresses[fingerprint] = address
        self._get(f"ip-to-country/{address}", partial(self._placed, fingerprint))

    def _placed(self, fingerprint: str, entries: Entries) -> None:
        self._countries.update((fingerprint, word) for word in entries.values())
        self._finish(fingerprint)

    def _finish(self, fingerprint: str) -> None:
        self._waiting.discard(fingerprint)
        if not self._waiting:
            self._done(CountriesSeen(self._countries, self._addresses))

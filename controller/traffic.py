# SPDX-License-Identifier: GPL-2.0-or-later
"""How much each domain receives and sends, by the counters of its vif.

The counters are those of the provider's end, so what it receives the domain has
sent.  A rate is that since the last time somebody asked.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from controller.ports import Link, Platform


@dataclass(frozen=True, slots=True)
class Counters:
    """Bytes since the link was laid."""

    received: int
    sent: int


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes so far, and bytes per second; a rate is None the first time."""

    received: int
    sent: int
    receiving: float | None = None
    sending: float | None = None


@dataclass(slots=True)
class Meter:
    """Remembers what it read last, and when (seconds of a monotonic clock)."""

    platform: Platform
    _last: Mapping[str, tuple[float, str, Counters]] = field(default_factory=dict)

    def read(self, links: Mapping[str, Link], now: float) -> Mapping[str, Traffic]:
        """Return the traffic of each linked domain."""
        seen = {
            name: (now, link.vif, counters)
            for provider in {link.provider for link in links.values()}
            for name, link, counters in self._of(provider, links)
        }
        found = {name: _traffic(self._last.get(name), x) for name, x in seen.items()}
        self._last = seen
        return found

    def _of(
        self, provider: str, links: Mapping[str, Link]
    ) -> Iterator[tuple[str, Link, Counters]]:
        counters = self.platform.counters(provider)
        for name, link in links.items():
            if link.provider == provider and link.vif in counters:
                received, sent = counters[link.vif]
                yield name, link, Counters(received=sent, sent=received)


def _traffic(
    before: tuple[float, str, Counters] | None, now: tuple[float, str, Counters]
) -> Traffic:
    at, vif, counters = now
    if before is None or before[1] != vif or before[0] >= at:
        return Traffic(counters.received, counters.sent)
    earlier, _, old = before
    seconds = at - earlier
    return Traffic(
        counters.received,
        counters.sent,
        (counters.received - old.received) / seconds,
        (counters.sent - old.sent) / seconds,
    )

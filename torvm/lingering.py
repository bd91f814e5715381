# SPDX-License-Identifier: GPL-2.0-or-later
"""DNSPorts that tor keeps for a while when nobody is sent there any more.

tor closes the socket of a DNSPort, and libevent, which has it too, does so again
when the last question there is answered (evdns_close_server_port(), evdns.c 2.1.12;
dnsserv.c of tor 0.4.9).  By then the number may be another connection's, which is
told the answer and closed: one client reads what another asked.  So none is closed
while a question may be open, and a tor that has to close all is ended instead.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torvm.listeners import Kind, Listener

# Seconds.  tor gives a question up after 120 (SocksTimeout), or soon after.
KEPT = 300.0


@dataclass(frozen=True, slots=True)
class Lingering:
    """``wanted`` are DNSPorts in use, ``left`` those that were, and until when."""

    wanted: frozenset[Listener] = frozenset()
    left: Mapping[Listener, float] = field(default_factory=dict)

    def follow(self, places: Iterable[Listener], moment: float) -> "Lingering":
        """Take where tor is to listen now."""
        wanted = _names(places)
        ends = dict.fromkeys(self.wanted, moment + KEPT) | dict(self.left)
        left = {p: end for p, end in ends.items() if moment < end and p not in wanted}
        return Lingering(wanted, left)

    @property
    def places(self) -> frozenset[Listener]:
        """All that stay open."""
        return self.wanted | self.left.keys()

    def lost(self, before: Iterable[Listener], now: Iterable[Listener]) -> bool:
        """Whether tor has closed one that was open and should have stayed so."""
        return not _names(before) & self.places <= frozenset(now)


def _names(places: Iterable[Listener]) -> frozenset[Listener]:
    return frozenset(place for place in places if place.kind is Kind.DNS)

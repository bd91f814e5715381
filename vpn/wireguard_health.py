# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a WireGuard tunnel works, from what its counters say.

WireGuard is silent: it has no word for connected.  What it does have is the time
of the latest handshake, which proves keys and a way in both directions, and
counters of bytes.  Three rules of the protocol (whitepaper, 6) make them speak:

* who sends sooner or later makes a new handshake, after 120 s at the latest, so
  with keepalives on, none in that time is a dead peer;
* a peer that got data and has none to send sends a keepalive within 10 s, so
  data without anything received is a dead peer too;
* a keepalive is 32 bytes and is not answered, so it counts as nothing.

Moments are those of `time.monotonic`, at which a change was seen: the handshake's
own time is of the wall clock, which may be set.
"""

from dataclasses import dataclass, replace
from enum import Enum

from vpn.wireguard_device import PeerState

KEEPALIVE = 32  # bytes
REKEY = 120.0  # seconds: REKEY_AFTER_TIME
LEAST_AGE = 135.0
GRACE = 15.0  # seconds: REKEY_TIMEOUT and some
SILENCE = 20.0  # seconds: KEEPALIVE_TIMEOUT, REKEY_TIMEOUT and some
QUIET = 30.0  # seconds without anything heard, after which somebody is asked


class Verdict(Enum):
    """What the counters mean."""

    WAITING = "no verdict yet"
    PROVEN = "the tunnel carries data"
    UNANSWERED = "no handshake: not reachable, or a key is wrong on one side"
    UNREACHABLE = "no handshake: the network says that it cannot be reached"
    EMPTY = "a handshake, but nothing comes back through the tunnel"
    SILENT = "nothing comes any more"


@dataclass(frozen=True, slots=True)
class Health:
    """What was seen of one attempt since ``begun``.

    ``keepalive`` and ``patience`` are seconds, ``errors`` is how often the network
    had said by then that it cannot reach somebody.  ``probed``: there is somebody in
    the tunnel who is asked, so a handshake alone proves nothing yet.
    """

    begun: float
    keepalive: int
    patience: float
    probed: bool
    errors: int = 0
    proven: bool = False
    handshake: int = 0
    shaken_at: float = 0.0
    received: int = 0
    heard_at: float = 0.0
    sent: int = 0
    unheard_since: float | None = None

    def seen(self, peer: PeerState, now: float) -> "Health":
        """Return the health after a look at the counters."""
        fresh = peer.handshake != self.handshake
        heard = peer.received > self.received
        spoke = peer.sent - self.sent > KEEPALIVE
        unheard = self.unheard_since
        if heard:
            unheard = None
        elif spoke and unheard is None:
            unheard = now
        # What came before or with the first handshake may be the handshake itself.
        data = bool(heard and self.handshake)
        return replace(
            self,
            proven=self.proven or data or bool(peer.handshake and not self.probed),
            handshake=peer.handshake,
            shaken_at=now if fresh else self.shaken_at,
            received=peer.received,
            heard_at=now if heard else self.heard_at,
            sent=peer.sent,
            unheard_since=unheard,
        )

    def answered(self, now: float) -> "Health":
        """Return the health after something in the tunnel answered."""
        return replace(self, proven=True, heard_at=now, unheard_since=None)

    def verdict(self, now: float, errors: int = 0) -> Verdict:
        """Return what all that means; ``errors`` is as at the beginning."""
        if self.proven:
            return Verdict.SILENT if self._is_silent(now) else Verdict.PROVEN
        if not self.handshake:
            silence = (
                Verdict.UNREACHABLE if errors > self.errors else Verdict.UNANSWERED
            )
            late = now >= self.begun + self.patience
            return silence if late else Verdict.WAITING
        late = now >= self.shaken_at + self.patience
        return Verdict.EMPTY if late else Verdict.WAITING

    def is_quiet(self, now: float) -> bool:
        """Whether it is time to ask, since an idle tunnel may be a dead one."""
        return self.probed and now - max(self.shaken_at, self.heard_at) >= QUIET

    def _is_silent(self, now: float) -> bool:
        if self.unheard_since is not None and now - self.unheard_since >= SILENCE:
            return True
        most = max(LEAST_AGE, REKEY + self.keepalive + GRACE)
        return now - max(self.shaken_at, self.heard_at) > most

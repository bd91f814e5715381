# SPDX-License-Identifier: GPL-2.0-or-later
"""When the next attempt is due, and at which server.

Times are in seconds of one clock.  Pure.
"""

import math
from dataclasses import dataclass, replace

from vpn.endpoints import Rotation

STABLE = 20.0  # a tunnel that was up for so long is good
MOST_UNSTABLE = 4.0  # the longest pause after one that was up at all
# A wrong password is not said often: servers lock accounts.
FIRST_REJECTED, MOST_REJECTED = 60.0, 900.0


@dataclass(frozen=True, slots=True)
class Attempts:
    """What became of the attempts; ``due`` is when the next may begin.

    ``rejected`` counts how often in a row the server did not take the login,
    ``up_since`` is when the tunnel came up, ``math.inf`` while it is not.
    """

    rotation: Rotation
    due: float = 0.0
    rejected: int = 0
    up_since: float = math.inf

    def failed(self, now: float) -> "Attempts":
        """Return these after an attempt that came to nothing."""
        rotation = self.rotation.failed()
        return Attempts(rotation, now + rotation.pause(), self.rejected)

    def refused(self, now: float) -> "Attempts":
        """Return these after the server did not take the login."""
        pause = min(FIRST_REJECTED * (1 << min(self.rejected, 9)), MOST_REJECTED)
        return Attempts(self.rotation.failed(), now + pause, self.rejected + 1)

    def succeeded(self, now: float) -> "Attempts":
        """Return these after the tunnel came up."""
        return replace(self, rejected=0, up_since=now)

    def lost(self, now: float) -> "Attempts":
        """Return these after a tunnel that was up went.

        The same server is tried again at once, unless it did not stay up.
        """
        if now - self.up_since < STABLE:
            again = self.failed(now)
            return replace(again, due=min(again.due, now + MOST_UNSTABLE))
        return Attempts(self.rotation.worked(), now)

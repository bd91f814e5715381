# SPDX-License-Identifier: GPL-2.0-or-later
"""What was decided lately, for ``ravelin log``."""

import time
from collections import deque

from controller.admin import Json

KEPT = 1000


class Journal:
    """The last `KEPT` events, oldest first."""

    def __init__(self) -> None:
        self._events: deque[tuple[float, str, str]] = deque(maxlen=KEPT)

    def add(self, domain: str, text: str) -> None:
        """Remember that something happened to a domain now."""
        self._events.append((time.time(), domain, text))

    def data(self) -> Json:
        """Return the events as `controller.output.log` shows them."""
        return {
            "events": [
                {
                    "time": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)),
                    "domain": domain,
                    "text": text,
                }
                for at, domain, text in self._events
            ]
        }

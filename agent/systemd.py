# SPDX-License-Identifier: GPL-2.0-or-later
"""Tell the service manager how we are: sd_notify(3).

The protocol is one datagram of ``KEY=value`` lines to the socket named by
``NOTIFY_SOCKET``.  Without that variable nothing is sent.
"""

import math
import os
import socket
import time
from contextlib import suppress

PATIENCE = 1.0  # seconds for a supervisor that reads nothing to read on


class Notifier:
    """The way to whoever supervises this process."""

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        # "@" stands for the NUL that an abstract address begins with (unix(7)).
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        limit = int(os.environ.get("WATCHDOG_USEC", "0"))
        self._period = limit / 2_000_000 if limit else math.inf
        self.due = time.monotonic() + self._period
        """When the next sign of life is due; `math.inf` if none is asked for."""

    def ready(self, status: str) -> None:
        """Say that the rules are enforced; ``status`` is one line for people."""
        self._send(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """Say that everything is read and applied anew."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def alive(self) -> None:
        """Give a sign of life, if one is due."""
        if time.monotonic() >= self.due:
            self.due = time.monotonic() + self._period
            self._send("WATCHDOG=1")

    def _send(self, lines: str) -> None:
        if not self._address:
            return
        # A supervisor that went away is no reason to stop enforcing.
        with (
            suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
        ):
            sender.settimeout(PATIENCE)
            sender.sendto(lines.encode(), self._address)

# SPDX-License-Identifier: GPL-2.0-or-later
"""The signals that an agent is told by, as something to wait on."""

import signal
import socket


class Signals:
    """Takes ``numbers`` over, in the main thread; readable when one came."""

    def __init__(self, *numbers: signal.Signals) -> None:
        # Both ends live as long as we do: a closed one would wake us for ever.
        self._ours, self._theirs = socket.socketpair()
        for end in (self._ours, self._theirs):
            end.settimeout(0)
        signal.set_wakeup_fd(self._theirs.fileno(), warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, lambda *_: None)

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._ours.fileno()

    def take(self) -> bytes:
        """Return the numbers of the signals that came."""
        return self._ours.recv(64)

    def close(self) -> None:
        """Give the descriptors back; the signals stay without effect."""
        signal.set_wakeup_fd(-1)
        self._ours.close()
        self._theirs.close()

# SPDX-License-Identifier: GPL-2.0-or-later
"""A file descriptor that becomes readable at a time (timerfd_create(2)).

Python has it from 3.13 on only.
"""

import ctypes
import math
import os
import time

NANOSECONDS = 10**9

_libc = ctypes.CDLL(None, use_errno=True)


class Timer:
    """Fires once at a moment of `time.monotonic`.  Raises `OSError`."""

    def __init__(self) -> None:
        flags = os.O_NONBLOCK | os.O_CLOEXEC
        self._fd = _checked(_libc.timerfd_create(time.CLOCK_MONOTONIC, flags))

    def fileno(self) -> int:
        """Return the descriptor, the same for the life of this object."""
        return self._fd

    def arm(self, moment: float) -> None:
        """Fire at ``moment``, in place of what was set; `math.inf`: never."""
        wait = 0 if math.isinf(moment) else max(int(moment * NANOSECONDS), 1)
        # struct itimerspec: interval (none), then the value; a value of zero disarms.
        setting = (ctypes.c_long * 4)(0, 0, *divmod(wait, NANOSECONDS))
        absolute = 1  # TFD_TIMER_ABSTIME
        _checked(_libc.timerfd_settime(self._fd, absolute, setting, None))

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._fd)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"timerfd: {os.strerror(number)}")
    return result

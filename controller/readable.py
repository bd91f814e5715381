# SPDX-License-Identifier: GPL-2.0-or-later
"""Wait for one descriptor, whatever its number."""

import select


def readable(descriptor: int, within: float) -> bool:
    """Wait until there is something to read, or its other end is gone; say whether.

    ``within`` are seconds; less than none is none.  select(2) knows no descriptor
    above 1023, of which a daemon with many domains has some.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(max(0.0, within) * 1000))

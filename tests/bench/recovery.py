# SPDX-License-Identifier: GPL-2.0-or-later
"""How long clients are without what a daemon carries, after it was killed."""

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from statistics import median

from tests.bench.figures import Figure
from tests.tor.chain import ATTEMPT, tor_chain


def recovery(
    part: str, rounds: int, daemon: Callable[[], int], flows: Callable[[], bool]
) -> Figure:
    """Kill a daemon again and again; nobody lends a hand.

    ``daemon`` gives its pid, ``flows`` whether a client gets through.
    """
    taken = []
    for _ in range(rounds):
        begin, pid = time.monotonic(), daemon()
        with os.fdopen(os.pidfd_open(pid)) as handle:
            os.kill(pid, signal.SIGKILL)
            select.select([handle], [], [])
        while not flows():
            pass
        taken.append(time.monotonic() - begin)
    what = "the daemon is killed: until a client reaches a site again"
    return Figure(part, what, median(taken), "s", note=f"at most {max(taken):.1f} s")


def tor(rounds: int) -> Iterator[Figure]:
    """Kill tor before a private Tor network; the site is beyond an exit."""
    with tor_chain() as chain:
        chain.through("anon")

        def flows() -> bool:
            return bool(chain.fetch("anon", patience=ATTEMPT))

        yield recovery("Tor", rounds, lambda: chain.running("/usr/bin/tor"), flows)

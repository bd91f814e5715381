# SPDX-License-Identifier: GPL-2.0-or-later
"""Ping until there is an answer, from the network that this process is in.

ping(8) with a deadline gives up at the first ICMP error, and the kernel makes one
after three seconds without an answer to ARP.  On a busy machine a link that just
came up may not carry for longer than that, so ping is started again and again.
"""

import subprocess
import time

PATIENCE = 30.0  # seconds; only a failing test waits that long


def answered(*words: str, within: float = PATIENCE) -> bool:
    """Say whether an answer comes; with ``within=0`` after one second at most.

    ``words`` are the address and options of ping(8).
    """
    deadline = time.monotonic() + within
    argv = ["ping", "-n", "-c1", "-i0.2", "-w1", *words]
    while subprocess.run(argv, check=False, capture_output=True).returncode:
        if time.monotonic() >= deadline:
            return False
    return True

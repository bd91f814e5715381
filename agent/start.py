# SPDX-License-Identifier: GPL-2.0-or-later
"""Start an agent: the guard first, everything else after it."""

import logging
import sys
from collections.abc import Callable

from agent.capacity import capacity
from agent.nft import Nft
from agent.personality import Personality
from rules.constant import constant
from rules.facts import Gateway

log = logging.getLogger(__name__)


def main(personality: Callable[[], Personality], kind: Gateway = Gateway.ROUTER) -> int:
    """Run an agent until it is told to stop; return its exit status.

    ``kind`` is that of the personality, which is not there yet.

    The guard and the closed skeleton are in the kernel before any library is
    imported that takes its time; over an existing ruleset they change nothing
    that is in force.
    """
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s"
    )
    try:
        firewall = Nft()
        # The first time may load conntrack, which alone knows how large its table is.
        known = 0
        while known != (known := capacity()):
            firewall.load(constant(kind, known))
        # After the guard: this import takes 0.2 s (ADR 0003).
        from agent.wiring import run  # noqa: PLC0415

        run(personality(), firewall)
    except Exception:
        # What is in the kernel stays; the service manager starts us again.
        log.exception("stopping")
        return 1
    return 0

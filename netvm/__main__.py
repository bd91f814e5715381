# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent of a NetVM."""

import sys

from agent import start
from agent.machine import plain
from agent.personality import Personality
from netvm.states import NETVM
from rules.internal import INTERNAL


def personality() -> Personality:
    """Return the NetVM, which asks whoever knows the network for its resolvers."""
    # After the guard: dbus is slow to import.
    from netvm.bus import Bus  # noqa: PLC0415
    from netvm.dns_sources import PROPERTIES, DnsSources  # noqa: PLC0415

    sources = DnsSources(Bus(PROPERTIES))
    return Personality(plain(NETVM), sources, INTERNAL)


if __name__ == "__main__":
    sys.exit(start.main(personality))

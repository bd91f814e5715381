# SPDX-License-Identifier: GPL-2.0-or-later
"""The TorVM: clients' TCP and names through Tor, nothing else of anybody.

The table is the one of every gateway with a daemon: only a tor that has
circuits carries clients.  A tor that ended, and one whose circuits are gone,
lead to `LOST`, which allows what `CONNECTING` does: tor's own way to its
relays.  There is no way back to a plain gateway.
"""

from enum import Enum

from agent.machine import Machine
from rules.facts import Facts
from rules.flows import CARRIED, CONTROL_PORT, INTO_DAEMON, PING


class Tor(Enum):
    """The states of a TorVM."""

    DOWN = "down"  # no uplink has both an address and a next hop
    CONNECTING = "connecting"  # tor bootstraps
    UP = "up"  # tor has circuits
    LOST = "lost"  # it had, and has none; or it ended and comes again
    ERROR = "error"  # it cannot work until somebody changes something


class Progress(Enum):
    """What the driver says of its tor."""

    HOPELESS = "cannot work as configured"
    TRYING = "has no circuits"
    READY = "has circuits"


class Seen(Enum):
    """What the facts and the driver say together."""

    UPLINK_LOST = "uplink lost"
    TRYING = "no circuits"
    READY = "circuits"
    HOPELESS = "configuration refused"


REACHING_OUT = frozenset({PING, CONTROL_PORT, CARRIED})

TORVM: Machine[Tor, Seen] = Machine(
    "torvm",
    Tor.DOWN,
    {
        **{(state, Seen.HOPELESS): Tor.ERROR for state in Tor},
        **{(state, Seen.UPLINK_LOST): Tor.DOWN for state in Tor},
        (Tor.DOWN, Seen.TRYING): Tor.CONNECTING,
        (Tor.ERROR, Seen.TRYING): Tor.CONNECTING,
        **{(state, Seen.READY): Tor.UP for state in Tor},
        (Tor.UP, Seen.TRYING): Tor.LOST,
    },
    {
        Tor.DOWN: frozenset({PING, CONTROL_PORT}),
        Tor.CONNECTING: REACHING_OUT,
        Tor.UP: REACHING_OUT | {INTO_DAEMON},
        Tor.LOST: REACHING_OUT,
        Tor.ERROR: frozenset({PING}),
    },
)

HELD = frozenset(s.value for s, flows in TORVM.allowed.items() if CARRIED not in flows)
"""The words for the states in which tor is not let out."""


def observe(facts: Facts, progress: Progress) -> Seen:
    """Return what the present uplinks and the driver's word mean for the table."""
    if progress is Progress.HOPELESS:
        return Seen.HOPELESS
    if not any(uplink.own and uplink.gateways for uplink in facts.uplinks):
        return Seen.UPLINK_LOST
    return Seen.READY if progress is Progress.READY else Seen.TRYING

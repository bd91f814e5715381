# SPDX-License-Identifier: GPL-2.0-or-later
"""The table: clients' TCP and names into the relay, the relay to the proxy."""

from enum import Enum

from agent.machine import Machine
from rules.facts import Facts
from rules.flows import CARRIED, INTO_DAEMON, PING


class Proxy(Enum):
    """The states of a domain with an upstream proxy."""

    DOWN = "down"  # no uplink has both an address and a next hop
    CONNECTING = "connecting"  # the proxy has not answered yet
    UP = "up"  # it has
    LOST = "lost"  # it had, and does not any more; or the relay ended
    ERROR = "error"  # the configuration is refused


class Progress(Enum):
    """What the driver says of its relay."""

    HOPELESS = "cannot work as configured"
    TRYING = "no answer of the proxy"
    READY = "the proxy answers"


class Seen(Enum):
    """What the facts and the driver say together."""

    HOPELESS = "configuration refused"
    UPLINK_LOST = "uplink lost"
    TRYING = "no answer"
    READY = "answer"


UPSTREAM_PROXY: Machine[Proxy, Seen] = Machine(
    "upstream-proxy",
    Proxy.DOWN,
    {
        **{(state, Seen.HOPELESS): Proxy.ERROR for state in Proxy},
        **{(state, Seen.UPLINK_LOST): Proxy.DOWN for state in Proxy},
        **{(state, Seen.READY): Proxy.UP for state in Proxy},
        (Proxy.DOWN, Seen.TRYING): Proxy.CONNECTING,
        (Proxy.UP, Seen.TRYING): Proxy.LOST,
    },
    {
        Proxy.DOWN: frozenset({PING}),
        Proxy.CONNECTING: frozenset({PING, CARRIED}),
        Proxy.UP: frozenset({PING, CARRIED, INTO_DAEMON}),
        Proxy.LOST: frozenset({PING, CARRIED}),
        Proxy.ERROR: frozenset({PING}),
    },
)


def observe(facts: Facts, progress: Progress) -> Seen:
    """Return what the present uplinks and the driver's word mean for the table."""
    if progress is Progress.HOPELESS:
        return Seen.HOPELESS
    if not any(uplink.own and uplink.gateways for uplink in facts.uplinks):
        return Seen.UPLINK_LOST
    return Seen.READY if progress is Progress.READY else Seen.TRYING

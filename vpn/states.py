# SPDX-License-Identifier: GPL-2.0-or-later
"""The VPN: one tunnel for many clients, the same table for every driver.

Only a tunnel that was seen to carry data carries clients.  A daemon that
ended, a device that is gone and a server that went silent all lead to `LOST`,
which allows what `CONNECTING` does: the way to one server, and nothing of the
clients.  There is no way back to a plain gateway.

The resolver in the tunnel may be asked before the tunnel is up: its answer is
what proves it.
"""

from enum import Enum

from agent.machine import Machine
from rules.facts import Facts
from rules.flows import CARRIED, DNS_IN_TUNNEL, IN_TUNNEL, NAMES_IN_TUNNEL, PING


class Tunnel(Enum):
    """The states of a VPN."""

    DOWN = "down"  # no uplink has both an address and a next hop
    CONNECTING = "connecting"  # a server is tried
    UP = "up"  # the tunnel was seen to carry data, and still does
    LOST = "lost"  # it did, and no longer does; a server is tried
    ERROR = "error"  # it cannot work until somebody changes something


class Progress(Enum):
    """What a driver says of its tunnel."""

    HOPELESS = "cannot work as configured"
    TRYING = "not seen to carry data"
    PROVEN = "carries data"


class Seen(Enum):
    """What the facts and the driver say together."""

    UPLINK_LOST = "uplink lost"
    TRYING = "tunnel not proven"
    PROVEN = "tunnel proven"
    HOPELESS = "configuration refused"


REACHING_OUT = frozenset({PING, CARRIED, NAMES_IN_TUNNEL})

VPN: Machine[Tunnel, Seen] = Machine(
    "vpn",
    Tunnel.DOWN,
    {
        **{
            (state, Seen.HOPELESS): Tunnel.ERROR
            for state in Tunnel
            if state is not Tunnel.ERROR
        },
        **{
            (state, Seen.UPLINK_LOST): Tunnel.DOWN
            for state in Tunnel
            if state is not Tunnel.DOWN
        },
        (Tunnel.DOWN, Seen.TRYING): Tunnel.CONNECTING,
        (Tunnel.ERROR, Seen.TRYING): Tunnel.CONNECTING,
        (Tunnel.CONNECTING, Seen.PROVEN): Tunnel.UP,
        (Tunnel.LOST, Seen.PROVEN): Tunnel.UP,
        (Tunnel.UP, Seen.TRYING): Tunnel.LOST,
    },
    {
        Tunnel.DOWN: frozenset({PING}),
        Tunnel.CONNECTING: REACHING_OUT,
        Tunnel.UP: REACHING_OUT | {IN_TUNNEL, DNS_IN_TUNNEL},
        Tunnel.LOST: REACHING_OUT,
        Tunnel.ERROR: frozenset({PING}),
    },
)


def observe(facts: Facts, progress: Progress) -> Seen:
    """Return what the present uplinks and the driver's word mean for the table."""
    if progress is Progress.HOPELESS:
        return Seen.HOPELESS
    if not any(uplink.own and uplink.gateways for uplink in facts.uplinks):
        return Seen.UPLINK_LOST
    return Seen.PROVEN if progress is Progress.PROVEN else Seen.TRYING

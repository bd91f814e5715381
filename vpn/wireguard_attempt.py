# SPDX-License-Identifier: GPL-2.0-or-later
"""One attempt at one server, and when the next thing is due."""

import math
from dataclasses import dataclass, replace

from vpn.endpoints import Rotation, Target
from vpn.wireguard_device import Setting
from vpn.wireguard_health import Health
from vpn.wireguard_profile import Peer, Profile

# A keepalive makes the first handshake, and keeps the way back open in conntrack
# and in every NAT on the way; a profile that has none gets this, in seconds.
KEEPALIVE = 25


@dataclass(frozen=True, slots=True)
class Attempt:
    """A server that is tried or used; no health until the device was told."""

    peer: Peer
    target: Target
    health: Health | None = None

    @property
    def is_proven(self) -> bool:
        """Whether it was seen to carry data."""
        return self.health is not None and self.health.proven

    def begun(
        self, now: float, patience: float, *, probed: bool, errors: int = 0
    ) -> "Attempt":
        """Return the attempt after the device was told."""
        keepalive = _keepalive(self.peer)
        return replace(self, health=Health(now, keepalive, patience, probed, errors))

    def answered(self, now: float) -> "Attempt":
        """Return the attempt after something in the tunnel answered."""
        if self.health is None:
            return self
        return replace(self, health=self.health.answered(now))


@dataclass(slots=True)
class Moments:
    """When to do what, by `time.monotonic`; `math.inf`: never."""

    choose: float = 0.0
    make: float = 0.0
    start: float = 0.0
    wake: float = math.inf
    look: float = math.inf


def attempt_at(profile: Profile, rotation: Rotation, target: Target) -> Attempt:
    """Return an attempt at the server whose turn it is."""
    return Attempt(profile.peers[rotation.turn % len(profile.peers)], target)


def setting(profile: Profile, attempt: Attempt | None) -> Setting:
    """Return what the device is told, with a peer only for an attempt."""
    if attempt is None:
        return Setting(profile.private, profile.port)
    peer = replace(attempt.peer, keepalive=_keepalive(attempt.peer))
    return Setting(profile.private, profile.port, peer, attempt.target)


def _keepalive(peer: Peer) -> int:
    return peer.keepalive or KEEPALIVE

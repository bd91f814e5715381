# SPDX-License-Identifier: GPL-2.0-or-later
"""What a WireGuard tunnel is to be, and what it says of itself.

There are two adapters: the kernel's own (`vpn.wireguard_kernel`) and
wireguard-go, where the kernel has none (`vpn.wireguard_go`).
"""

from dataclasses import dataclass
from typing import Protocol

from rules.facts import Carrier
from vpn.endpoints import Target
from vpn.wireguard_profile import Key, Peer


@dataclass(frozen=True, slots=True)
class Setting:
    """One end, and the one peer it has; None: there is none, and silence.

    ``port`` is the local UDP port, 0: any.
    """

    private: Key
    port: int
    peer: Peer | None = None
    target: Target | None = None


@dataclass(frozen=True, slots=True)
class PeerState:
    """What is known of a peer.

    ``handshake`` is when the latest one was, in nanoseconds of the wall clock,
    0: never.  ``received`` and ``sent`` are bytes.  ``endpoint`` is where it was
    heard from last.
    """

    public: Key
    endpoint: Target | None = None
    handshake: int = 0
    received: int = 0
    sent: int = 0


class Device(Protocol):
    """A WireGuard device.  No method waits; each may raise `OSError`."""

    @property
    def word(self) -> str:
        """What it is, for people."""

    @property
    def carrier(self) -> Carrier:
        """Whose packets are those of the tunnel."""

    @property
    def link(self) -> tuple[str, int] | None:
        """Its name and index; None while there is no such device."""

    @property
    def ready(self) -> bool:
        """Whether it can be set."""

    def fileno(self) -> int:
        """Return what is readable when it has something to say, or -1."""

    def handle(self) -> bool:
        """Take what came; return whether `link`, `ready` or `peer` may differ."""

    def make(self) -> None:
        """Make the device, in place of whatever has its name."""

    def start(self) -> None:
        """Start its daemon, if there is one to start."""

    def set(self, setting: Setting) -> None:
        """Make it this, and nothing else."""

    def steer(self, public: Key, target: Target) -> None:
        """Send to a peer at ``target``, wherever it was heard from.

        Until it says otherwise, that is where `peer` is.
        """

    def look(self) -> None:
        """Ask for `peer`; it may come later."""

    @property
    def peer(self) -> PeerState | None:
        """What was said last of the one peer."""

    def errors(self) -> int:
        """Return how often the network said that it reaches somebody not."""

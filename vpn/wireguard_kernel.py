# SPDX-License-Identifier: GPL-2.0-or-later
"""WireGuard by the kernel.

The kernel sends the tunnel's packets itself, so they have no user.  What the
uplinks carry is bound to a mark, which needs CAP_NET_ADMIN or CAP_NET_RAW here,
and to the server's address and port.
"""

from contextlib import suppress
from dataclasses import replace
from socket import if_nametoindex

from agent.netlink import ROUTE, Netlink
from agent.ports import NetlinkError
from rules.facts import Mark
from vpn import tun, unreachable
from vpn.endpoints import Target
from vpn.wireguard_device import PeerState, Setting
from vpn.wireguard_netlink import (
    GENERIC,
    add_wireguard,
    family_of,
    look,
    peers,
    settings,
    steer,
)
from vpn.wireguard_profile import Key

MARK = 0xCA6C
TRIED = "wg-try"


class WireguardKernel:
    """The port `vpn.wireguard_device.Device`."""

    word = "WireGuard of the kernel"
    carrier = Mark(MARK)

    def __init__(self, name: str) -> None:
        self._name = name
        self._index = 0
        self._number = 0
        self._generic = Netlink(GENERIC)
        self._peer: PeerState | None = None

    @property
    def link(self) -> tuple[str, int] | None:
        """The name and index of the device; None while there is none."""
        with suppress(OSError):
            if self._index and if_nametoindex(self._name) == self._index:
                return self._name, self._index
        return None

    @property
    def ready(self) -> bool:
        """Whether there is a device to set."""
        return self.link is not None

    @property
    def peer(self) -> PeerState | None:
        """What was said last of the one peer."""
        return self._peer

    def fileno(self) -> int:
        """Return -1: the kernel speaks only when it is asked."""
        return -1

    def errors(self) -> int:
        """Return how often the network said that it reaches somebody not."""
        return unreachable.told()

    def close(self) -> None:
        """Ask no more; the device stays."""
        self._generic.close()

    def handle(self) -> bool:
        """Do nothing."""
        return False

    def make(self) -> None:
        """Make the device, in place of whatever has its name.

        `NetlinkError` EOPNOTSUPP: this kernel has no WireGuard.
        """
        tun.remove(self._name)
        with Netlink(ROUTE) as kernel:
            kernel.do(add_wireguard(self._name))
        self._number = family_of(self._generic)
        self._index = if_nametoindex(self._name)
        self._peer = None

    def start(self) -> None:
        """Do nothing: there is no daemon."""

    def set(self, setting: Setting) -> None:
        """Make the tunnel this, and nothing else."""
        self._peer = None
        self._generic.do(*settings(self._number, self._index, setting, MARK))

    def steer(self, public: Key, target: Target) -> None:
        """Send to a peer at ``target``, wherever it was heard from."""
        self._generic.do(steer(self._number, self._index, public, target))
        if self._peer is not None:
            self._peer = replace(self._peer, endpoint=target)

    def look(self) -> None:
        """Ask for `peer`."""
        for message in self._generic.dump(look(self._number, self._index)):
            for peer in peers(message):
                self._peer = peer


def is_there() -> bool:
    """Whether the kernel has WireGuard, or loads it when it is asked to."""
    try:
        tun.remove(TRIED)  # of an agent that was killed just here
        with Netlink(ROUTE) as kernel:
            kernel.do(add_wireguard(TRIED))
    except NetlinkError:
        return False
    tun.remove(TRIED)
    return True

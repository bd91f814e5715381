# SPDX-License-Identifier: GPL-2.0-or-later
"""A WireGuard device that does what a test says, and a resolver likewise."""

from dataclasses import dataclass, field, replace

from rules.facts import Carrier, Uid
from vpn.endpoints import Target
from vpn.wireguard_device import PeerState, Setting
from vpn.wireguard_profile import Key

DAEMON = 61500


@dataclass
class FakeDevice:
    """``launcher``: one waits to be started; ``said``: what the network said.

    ``at_once``: it needs no daemon, as that of the kernel.
    """

    link: tuple[str, int] | None = None
    ready: bool = False
    peer: PeerState | None = None
    launcher: bool = True
    made: int = 0
    started: int = 0
    looks: int = 0
    told: list[Setting] = field(default_factory=list)
    steered: list[Target] = field(default_factory=list)
    news: bool = False
    refuses: OSError | None = None
    word: str = "a fake"
    said: int = 0
    at_once: bool = False
    carrier: Carrier = field(default_factory=lambda: Uid(DAEMON))

    def fileno(self) -> int:
        return -1

    def handle(self) -> bool:
        news, self.news = self.news, False
        return news

    def make(self) -> None:
        if self.refuses:
            raise self.refuses
        self.made += 1
        self.link, self.ready = ("wg0", 10 + self.made), self.at_once

    def start(self) -> None:
        if self.launcher and self.link:
            self.launcher, self.ready = False, True
            self.started += 1

    def set(self, setting: Setting) -> None:
        self.told.append(setting)
        self.peer = None

    def steer(self, public: Key, target: Target) -> None:
        assert public == self.told[-1].peer.public  # type: ignore[union-attr]
        self.steered.append(target)
        if self.peer is not None:
            self.peer = replace(self.peer, endpoint=target)

    def look(self) -> None:
        self.looks += 1

    def errors(self) -> int:
        return self.said

    # What happens to it.

    def ends(self) -> None:
        """The daemon is gone, and a launcher waits again."""
        self.ready, self.launcher, self.peer, self.news = False, True, None, True

    def says(self, **state: object) -> None:
        """It tells something of the peer it has."""
        peer = self.told[-1].peer
        assert peer is not None
        words = {"public": peer.public, "endpoint": self.told[-1].target} | state
        self.peer, self.news = PeerState(**words), True  # type: ignore[arg-type]

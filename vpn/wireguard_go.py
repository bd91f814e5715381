# SPDX-License-Identifier: GPL-2.0-or-later
"""WireGuard by the program wireguard-go, where the kernel has none.

It runs as the carrier's user without a capability (`vpn.wireguard_exec`).  The
agent makes its tun device and the socket it is told by, connects, and takes the
socket's file away again, so nobody else can ask it for its keys.

It ends when its device is deleted; only one that hangs is killed.
"""

import logging
import os
import select
import socket
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from agent import filtered
from agent.berth import BERTHS, Berth
from rules.facts import Uid
from vpn import tun, unreachable
from vpn.endpoints import Target
from vpn.tun import Framing, Tun
from vpn.wireguard_device import PeerState, Setting
from vpn.wireguard_profile import Key
from vpn.wireguard_uapi import GET, Conversation, UapiError, set_text, steer_text

log = logging.getLogger(__name__)

PROGRAM = Path("/usr/bin/wireguard-go")
# In tun/tun_linux.go since March 2023; snapshots say the version of the last release.
ASKS_ITS_DEVICE = b"initFromFlags"
SILENCE = 30.0  # seconds that an answer may take
FILTERED = (*filtered.RAVELIN, "wireguard")


class WireguardGo:
    """The port `vpn.wireguard_device.Device`."""

    word = "wireguard-go"

    def __init__(self, berth: Berth, name: str, directory: Path = BERTHS) -> None:
        self._berth = berth
        self._name = name
        self._directory = directory  # ours: a daemon could put something in the way
        self._tun: Tun | None = None
        self._talk: Conversation | None = None
        self._peer: PeerState | None = None
        self._due = 0  # answers that have not come
        self._spoke = 0.0  # when the last one came, or none was due
        self._stale = 0  # the first of them, about what was set before
        self._ready = select.epoll()
        self._ready.register(berth, select.EPOLLIN)

    @property
    def carrier(self) -> Uid:
        """Whose packets are those of the tunnel."""
        return Uid(self._berth.uid)

    @property
    def link(self) -> tuple[str, int] | None:
        """The name and index of the device; None while there is none."""
        if self._tun is None or not self._tun.there():
            return None
        return self._tun.name, self._tun.index

    @property
    def ready(self) -> bool:
        """Whether the daemon runs and listens."""
        return self._talk is not None and self._berth.running

    @property
    def peer(self) -> PeerState | None:
        """What was said last of the one peer."""
        return self._peer

    def fileno(self) -> int:
        """Return what is readable when the daemon came, spoke or ended."""
        return self._ready.fileno()

    def handle(self) -> bool:
        """Take what came; return whether anything may differ."""
        changed = self._berth.handle()
        if self._talk is not None:
            try:
                for peers in self._talk.answers():
                    changed |= self._take(peers)
            except OSError as error:
                self._failed(error)
                changed = True
        if not self._berth.running:
            self._hang_up()
        return changed

    def make(self) -> None:
        """Make the tun device; a daemon that has an earlier one ends, or is ended."""
        self._delete()
        self._berth.end()
        self._tun = tun.create(self._name, self._berth.uid, framing(PROGRAM))

    def start(self) -> None:
        """Start the daemon, if a launcher waits and there is a device."""
        if self._tun is None or not self._berth.waiting:
            return
        path = self._directory / "uapi"
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
            listening.listen(1)
            talk = socket.socket(socket.AF_UNIX)
            talk.connect(str(path))
            path.unlink()
            try:
                self._berth.start(
                    [*FILTERED, str(PROGRAM), "-f", self._name],
                    (self._tun.file, listening.fileno()),
                    {"WG_TUN_FD": "3", "WG_UAPI_FD": "4", "LOG_LEVEL": "error"},
                )
            except ConnectionError:  # who went meanwhile comes again
                talk.close()
                return
        self._talk = Conversation(talk)
        self._ready.register(self._talk, select.EPOLLIN)

    def set(self, setting: Setting) -> None:
        """Make the tunnel this, and nothing else."""
        self._peer, self._stale = None, self._due
        self._ask(set_text(setting))

    def steer(self, public: Key, target: Target) -> None:
        """Send to a peer at ``target``, wherever it was heard from."""
        self._ask(steer_text(public, target))
        if self._peer is not None:
            self._peer = replace(self._peer, endpoint=target)

    def look(self) -> None:
        """Ask for `peer`, which comes later."""
        self._ask(GET)

    def errors(self) -> int:
        """Return how often the network said that it reaches somebody not."""
        return unreachable.told()

    def close(self) -> None:
        """Delete the device, by which the daemon ends."""
        self._delete()
        self._ready.close()

    def _take(self, peers: list[PeerState]) -> bool:
        """Take an answer; return whether it tells of the peer."""
        self._due, self._spoke = self._due - 1, time.monotonic()
        if self._stale:
            self._stale -= 1
            return False
        self._peer = peers[0] if peers else self._peer
        return bool(peers)

    def _delete(self) -> None:
        self._hang_up()
        if self._tun is not None:
            self._tun.delete()
            self._tun = None

    def _ask(self, question: bytes) -> None:
        if self._talk is None:
            return
        if not self._due:
            self._spoke = time.monotonic()
        elif time.monotonic() >= self._spoke + SILENCE:
            log.warning("%s does not answer", self.word)
            self._berth.end()
        try:
            self._talk.ask(question)
            self._due += 1
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        log.warning("%s", error)
        if isinstance(error, UapiError):
            # Without its device it ends, and another one comes.
            self._delete()
        else:
            self._hang_up()

    def _hang_up(self) -> None:
        self._peer, self._due, self._stale = None, 0, 0
        if self._talk is not None:
            with suppress(OSError):
                self._ready.unregister(self._talk)
            self._talk.close()
            self._talk = None


def is_installed() -> bool:
    """Whether the program is there."""
    return os.access(PROGRAM, os.X_OK)


def framing(program: Path) -> Framing:
    """Return what it expects before each packet of a device that it is given.

    A new one asks the device whether it is of segments, an old one takes it to have a
    header.  Go keeps the names of functions in a program that is stripped.
    """
    asks = ASKS_ITS_DEVICE in program.read_bytes()
    return Framing.SEGMENTS if asks else Framing.HEADER

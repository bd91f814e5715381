# SPDX-License-Identifier: GPL-2.0-or-later
"""The OpenVPN daemon: started, heard, told, and left."""

import logging
import math
import os
import select
import time
from collections.abc import Callable

from agent.berth import Berth
from agent.timer import Timer
from vpn import openvpn_config, openvpn_management, tun
from vpn.endpoints import Target
from vpn.openvpn_door import Door
from vpn.openvpn_management import Decoder, ManagementError
from vpn.openvpn_profile import Profile
from vpn.openvpn_session import Outcome, Session
from vpn.openvpn_trouble import HANGS, NOTHING, Trouble, worse

log = logging.getLogger(__name__)

OPENVPN = "/usr/sbin/openvpn"
DEVICE = "ovpn0"
QUIET = 30.0  # seconds without a word until it is asked for one, and again until left


class Daemon:
    """At most one daemon at a time; ``session`` is what is known of it.

    ``device`` is the tunnel's, made before the daemon and kept when it ends.
    """

    def __init__(self, berth: Berth, door: Door, profile: Profile) -> None:
        self._berth = berth
        self._door = door
        self._profile = profile
        self._decoder = Decoder()
        self._came = False
        self._quiet, self._due, self._called = Timer(), math.inf, False
        self._last: Trouble = NOTHING
        self.session: Session | None = None
        self.device: tun.Tun | None = None
        self._ready = select.epoll()
        for each in (berth, door, self._quiet):
            self._ready.register(each.fileno(), select.EPOLLIN)

    def fileno(self) -> int:
        """Return what is readable when it came, speaks or has ended."""
        return self._ready.fileno()

    @property
    def uid(self) -> int:
        """The user it runs as."""
        return self._berth.uid

    @property
    def trouble(self) -> Trouble:
        """What the present attempt has met, or the last one of a daemon that ended."""
        return self._last if self.session is None else self.session.trouble

    @property
    def waiting(self) -> bool:
        """Whether it can be started."""
        return self._berth.waiting

    def start(self) -> None:
        """Start it; it then holds.  `agent.ports.NetlinkError` without a device."""
        if self.device is None or not self.device.there():
            self.device = tun.create(DEVICE, self.uid)
        self.device.release()
        path = str(self._door.path)
        text = openvpn_config.written(self._profile, DEVICE, path)
        file = os.memfd_create("openvpn")
        try:
            with open(file, "wb", closefd=False) as config:
                config.write(text)
            os.lseek(file, 0, os.SEEK_SET)
            self._berth.start([OPENVPN, "--config", "/proc/self/fd/3"], [file])
        except OSError as error:
            log.info("openvpn: %s", error)  # another launcher will come
            return
        finally:
            os.close(file)
        self.session, self._decoder = Session(self._profile.login), Decoder()
        self._came = False

    def handle(self) -> list[Outcome]:
        """Take what happened; return what it settled, in order."""
        self._berth.handle()
        if self._door.handle():
            self._came = True
            self._expect()
        outcomes: list[Outcome] = []
        if self._door.open:
            outcomes += self._hear()
            self._call()
        elif self._due < math.inf and not self._berth.running:
            self._expect()
        elif time.monotonic() >= self._due:  # it was left, and hangs
            self.end()
            self._expect()
        ended = not self._berth.running or (self._came and not self._door.open)
        if self.session is not None and ended:
            outcomes.append(self._end(self.session))
        return outcomes

    def lost_its_device(self) -> bool:
        """Leave a daemon whose device somebody removed; return whether it was so.

        It would read from nothing without a pause.
        """
        if self.session is None or self.device is None or self.device.there():
            return False
        self._last, self.session = Trouble("the device was removed", 3), None
        self._door.leave()
        return True

    def release(self) -> None:
        """Let it begin to connect."""
        self._tell(Session.release)

    def connect(self, target: Target) -> None:
        """Tell it where to."""
        self._tell(lambda session: session.connect(target))

    def restart(self, why: Trouble) -> None:
        """Make it hold again."""
        self._tell(lambda session: session.restart(why))

    def give_up(self) -> None:
        """Make it hold again, for the attempt takes too long."""
        self._tell(Session.give_up)

    def leave(self) -> None:
        """Make it end, by closing the connection; that is told by `handle`."""
        self._door.leave()

    def end(self) -> None:
        """Make one end that hangs."""
        self._door.leave()
        self._berth.end()

    def _hear(self) -> list[Outcome]:
        untrusted_words = self._door.hear()
        if self.session is None:
            self._door.leave()
            return []
        self._decoder.feed(untrusted_words or b"")
        if untrusted_words:
            self._expect()
        outcomes: list[Outcome | None] = []
        try:
            while (event := self._decoder.next_event()) is not None:
                outcomes.append(self.session.take(event))
        except ManagementError as error:
            log.warning("openvpn: %s", error)
            self._door.leave()
        self._tell(lambda _: None)
        return [each for each in outcomes if each is not None]

    def _call(self) -> None:
        """Ask one that says nothing for a word, and leave one that has none."""
        if time.monotonic() < self._due:
            return
        if self._called and self.session is not None:
            self.session.trouble = worse(self.session.trouble, HANGS)
            self.end()
        self._expect(called=True)
        self._door.say(openvpn_management.call())

    def _expect(self, *, called: bool = False) -> None:
        """Wait for its next word, for a while."""
        self._called, self._due = called, math.inf
        if self._door.open:
            self._due = time.monotonic() + QUIET
        self._quiet.arm(self._due)

    def _tell(self, what: Callable[[Session], None]) -> None:
        if self.session is not None:
            what(self.session)
            self._door.say(self.session.unsaid)
            self.session.unsaid = b""

    def _end(self, session: Session) -> Outcome:
        self._last, self.session = session.trouble, None
        if not self._came:
            said = Trouble("openvpn ended at once, its log says why", 6)
            self._last = worse(self._last, said)
        return Outcome.ENDED

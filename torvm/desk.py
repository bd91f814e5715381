# SPDX-License-Identifier: GPL-2.0-or-later
"""The control port of one client: its connections, and how much it may ask.

The socket listens at the vif of this client alone, by its index, and what is
accepted stays there: nobody outside reaches it, and who has its address later does
not inherit it.  A daemon of this domain reaches it once it binds to that vif too
(socket(7), SO_BINDTODEVICE), but has none of the client's addresses.
A client that asks too much is not read for a while, so the agent spends no more on
it than that.
"""

import math
import select
import socket
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address, ip_address

from rules.facts import Client
from rules.model import Address
from rules.redirects import SOCKS
from torvm.filter import Known, Talk

AT = 9052
"""The TCP port: none that tor is given, and none of ``ip_local_port_range``."""
MOST = 4  # connections of one client
CHUNK = 1024  # bytes taken at once
BURST, RATE = 40.0, 20.0  # connections, reads and answers at once, and in a second
PAUSE = 0.5  # seconds in which a client that asked too much is not heard
PATIENCE = 30.0  # seconds to authenticate, and to take an answer
SILENCE = 86_400.0  # seconds without a word; a browser asks when its user does
INTERVAL = 10.0  # seconds from one new identity to the next, as tor has it

_BINDTOIFINDEX = 62  # SO_BINDTOIFINDEX (asm-generic/socket.h), Linux 5.0
_ALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),  # seconds
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),  # seconds
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)


def listen(client: Client, port: int = AT) -> socket.socket:
    """Return a socket that listens at the vif of a client; `OSError` if none can."""
    version = socket.AF_INET if client.ip6 is None else socket.AF_INET6
    made = socket.socket(version, socket.SOCK_STREAM)
    try:
        made.setblocking(False)  # noqa: FBT003
        made.setsockopt(socket.SOL_SOCKET, _BINDTOIFINDEX, client.index)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if version == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind(("", port))
        made.listen(MOST)
    except OSError:
        made.close()
        raise
    return made


@dataclass(slots=True)
class _Caller:
    """One connection; ``here`` is our end as the client writes it."""

    made: socket.socket
    here: str
    heard: float
    talk: Talk = field(default_factory=Talk)
    awaited: int = 0

    @property
    def until(self) -> float:
        """When it is closed at the latest."""
        waits = self.talk.admitted and not self.talk.unsent
        return self.heard + (SILENCE if waits else PATIENCE)


class Desk:
    """Answers one client.  Moments are of `time.monotonic`.

    ``moving``: it was given another identity, which is not in force yet.
    ``asleep``: it is not heard until then.
    """

    def __init__(self, client: Client, listening: socket.socket, moment: float) -> None:
        self.client = client
        self.moving = False
        self.refused = 0
        self.asleep = -math.inf
        self._listening = listening
        self._callers: dict[int, _Caller] = {}
        self._budget, self._counted = BURST, moment
        self._moved = -math.inf
        self._ready = select.epoll()
        self._ready.register(listening, select.EPOLLIN)

    def fileno(self) -> int:
        """Return what is readable when the client said something."""
        return self._ready.fileno()

    def close(self) -> None:
        """Leave the client without an answer."""
        for each in self._callers.values():
            each.made.close()
        self._listening.close()
        self._ready.close()

    def next_deadline(self) -> float:
        """Return when to call `handle` at the latest."""
        if self.asleep > self._counted:
            return self.asleep
        if any(c.talk.busy and not c.talk.unsent for c in self._callers.values()):
            return self._counted
        moments = [caller.until for caller in self._callers.values()]
        # It was told of, if that is past.
        if self._wants and self._moved + INTERVAL > self._counted:
            moments.append(self._moved + INTERVAL)
        return min(moments, default=math.inf)

    def handle(self, known: Known, moment: float, *, socks: bool) -> None:
        """Take what came and answer it; ``socks``: it may speak that here."""
        earned = (moment - self._counted) * RATE
        self._budget, self._counted = min(self._budget + earned, BURST), moment
        if moment < self.asleep:
            return
        for caller in [c for c in self._callers.values() if c.until <= moment]:
            self._leave(caller)
        for descriptor, _ in self._ready.poll(0, MOST + 1):
            if descriptor == self._listening.fileno():
                self._accept(moment)
            elif descriptor in self._callers:
                self._hear(self._callers[descriptor], moment)
        for caller in list(self._callers.values()):
            place = f"{caller.here}:{SOCKS}" if socks else ""
            self._answer(caller, replace(known, socks=place))
        if self._budget < 1:
            self.asleep = moment + PAUSE

    def due(self, moment: float) -> bool:
        """Whether it wants another identity, and may have one."""
        return self._wants and moment >= self._moved + INTERVAL

    def move(self, moment: float) -> None:
        """Note that it is given another identity."""
        self.moving, self._moved = True, moment

    def moved(self) -> None:
        """Tell whoever asked that it has another identity."""
        self.moving = False
        for caller in [c for c in self._callers.values() if c.talk.wants]:
            caller.talk.moved()
            self._send(caller)
            self._await(caller)

    @property
    def _wants(self) -> bool:
        wanted = any(caller.talk.wants for caller in self._callers.values())
        return wanted and not self.moving

    def _accept(self, moment: float) -> None:
        self._budget -= 1
        try:
            made, peer = self._listening.accept()
        except OSError:  # it is gone again, or there is no room
            return
        if _address(peer[0]) not in self.client.addresses:
            made.close()
            return
        made.setblocking(False)  # noqa: FBT003
        for option in _ALIVE:
            made.setsockopt(*option)
        if len(self._callers) == MOST:
            self._leave(min(self._callers.values(), key=lambda caller: caller.heard))
        caller = _Caller(made, _written(made.getsockname()[0]), moment)
        self._callers[made.fileno()] = caller
        self._await(caller)

    def _hear(self, caller: _Caller, moment: float) -> None:
        self._budget -= 1
        if caller.talk.unsent:
            return
        try:
            untrusted_data = caller.made.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            untrusted_data = b""
        if untrusted_data:
            caller.heard = moment
            caller.talk.hear(untrusted_data)
        else:
            self._leave(caller)

    def _answer(self, caller: _Caller, known: Known) -> None:
        talk, before = caller.talk, caller.talk.refused
        self._send(caller)
        # Who does not take what it is told is told no more.
        while talk.busy and self._budget >= 1 and not talk.unsent:
            self._budget -= 1
            talk.answer(known)
            self._send(caller)
        self.refused += talk.refused - before
        self._await(caller)

    def _send(self, caller: _Caller) -> None:
        talk = caller.talk
        try:
            if talk.unsent:
                talk.unsent = talk.unsent[caller.made.send(talk.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            talk.unsent, talk.over = b"", True

    def _await(self, caller: _Caller) -> None:
        """Wait for what the caller must do next; if that is nothing, leave it."""
        talk = caller.talk
        if talk.over and not talk.unsent:
            self._leave(caller)
            return
        reading = 0 if talk.wants or talk.busy or talk.over else select.EPOLLIN
        awaited = select.EPOLLOUT if talk.unsent else reading
        if awaited == caller.awaited:
            return
        # Without interest epoll would still tell that the caller is gone.
        if caller.awaited == 0:
            self._ready.register(caller.made, awaited)
        elif awaited == 0:
            self._ready.unregister(caller.made)
        else:
            self._ready.modify(caller.made, awaited)
        caller.awaited = awaited

    def _leave(self, caller: _Caller) -> None:
        del self._callers[caller.made.fileno()]
        caller.made.close()


def _written(text: str) -> str:
    """Return our end of a connection as a client writes it before a port."""
    here = _address(text)
    return f"[{here}]" if isinstance(here, IPv6Address) else str(here)


def _address(text: str) -> Address:
    """Return an end of a connection, be it IPv4 by a socket of IPv6."""
    found = ip_address(text.partition("%")[0])
    return (isinstance(found, IPv6Address) and found.ipv4_mapped) or found

# SPDX-License-Identifier: GPL-2.0-or-later
"""One run of the OpenVPN daemon, followed by what it tells.

No socket and no clock: events go in, and what is to be said comes out.
"""

import logging
import re
from dataclasses import dataclass, field
from enum import Enum

from rules.model import shown
from vpn import openvpn_management as management
from vpn import openvpn_trouble as trouble
from vpn.endpoints import Target
from vpn.openvpn_events import (
    Bytes,
    Down,
    Event,
    Fatal,
    Hold,
    Log,
    Need,
    Other,
    Refused,
    Rejected,
    Remote,
    State,
    Up,
)
from vpn.openvpn_login import Login
from vpn.openvpn_pushed import Pushed, read
from vpn.openvpn_trouble import NOTHING, Trouble, worse

log = logging.getLogger(__name__)

COUNT_EVERY = 10  # seconds between two counts of bytes
SILENT = 6  # counts in a row with something sent and nothing received

AUTH = "Auth"  # what the server's login is called; no other has our words
NO_BYTES = Bytes(0, 0)

_CIPHER = re.compile(r"Data Channel: cipher '([A-Za-z0-9-]{1,40})'")
_HANDSHAKE = {"AUTH", "GET_CONFIG", "ASSIGN_IP", "ADD_ROUTES", "AUTH_PENDING"}


class Outcome(Enum):
    """What became of an attempt to connect, or of the connection."""

    CONNECTED = "connected"
    DOWN = "down"  # and what comes next is not known yet
    ENDED = "ended"  # and begins anew
    REJECTED = "login not taken"
    HOPELESS = "asks what nobody can answer"


@dataclass(slots=True)
class Session:
    """The daemon from its start to its end.

    ``held``: it waits to be released; ``asked``: it waits for an address.
    ``unsaid`` is what is to be sent to it, ``carried`` what it counted.
    """

    login: Login | None
    held: bool = False
    asked: Remote | None = None
    answered: bool = False  # the server did, at least at first
    connected: bool = False
    pushed: Pushed = field(default_factory=Pushed)
    cipher: str = ""
    carried: Bytes = NO_BYTES
    trouble: Trouble = NOTHING
    unsaid: bytes = field(
        default_factory=lambda: management.begin(COUNT_EVERY), repr=False
    )
    _silent: int = 0
    _rejected: bool = False

    def take(self, event: Event) -> Outcome | None:
        """Take what the daemon told; return what that settles."""
        match event:
            case Hold():
                self.held, self.asked = True, None
            case Remote():
                self.asked = event
            case State():
                return self._goes(event)
            case Need():
                return self._asked_for(event)
            case Rejected():
                self._rejected = True
            case Up(untrusted_variables):
                self.pushed = read(untrusted_variables)
                if self.connected:  # with what was checked then, and this was not
                    return self._down()
            case Down():
                return self._down()
            case Bytes() | Log() | Fatal() | Refused() | Other():
                self._note(event)
        return None

    def release(self) -> None:
        """Let it begin."""
        self.held, self.answered, self._rejected = False, False, False
        self.trouble, self.cipher = NOTHING, ""
        self.unsaid += management.release()

    def connect(self, target: Target) -> None:
        """Tell it where to connect to; another protocol than it asked for is next."""
        if self.asked is not None and self.asked.proto == target.proto:
            self.unsaid += management.connect(target.address, target.port)
        else:
            self.unsaid += management.skip()
        self.asked = None

    def restart(self, why: Trouble) -> None:
        """Make it begin anew."""
        self.trouble = worse(self.trouble, why)
        self.connected = False
        self.unsaid += management.reconnect()

    def give_up(self) -> None:
        """Make it begin anew, for the attempt takes too long."""
        if self.connected:
            self.restart(trouble.NOTHING_BACK)
        else:
            self.restart(trouble.BROKEN_OFF if self.answered else trouble.NO_ANSWER)

    def _goes(self, state: State) -> Outcome | None:
        match state:
            case State("CONNECTED"):
                return self._up()
            case State("RECONNECTING"):
                self.connected = False
                why = trouble.of_restart(state.detail, answered=self.answered)
                self.trouble = worse(self.trouble, why)
                return Outcome.REJECTED if self._rejected else Outcome.ENDED
            case State(name):
                self.answered |= name in _HANDSHAKE
                return None

    def _down(self) -> Outcome:
        self.connected = False
        return Outcome.DOWN

    def _up(self) -> Outcome | None:
        if not self.pushed.own:
            self.restart(Trouble("the server gave no address", 9))
            return None
        self.connected, self._silent = True, 0
        return Outcome.CONNECTED

    def _asked_for(self, need: Need) -> Outcome | None:
        if need.challenge:
            self.trouble = Trouble("the server asks a question of a person", 11)
        elif not need.login:
            self.trouble = Trouble("<key> has a passphrase, expected one without", 11)
        elif need.what != AUTH:
            self.trouble = Trouble(f"openvpn asks for {shown(need.what)}", 11)
        elif self.login is None:
            self.trouble = Trouble(
                'the server wants a login, expected auth = "FILE" in the policy', 11
            )
        else:
            self.unsaid += management.login(need, self.login)
            return None
        return Outcome.HOPELESS

    def _note(self, event: Bytes | Log | Fatal | Refused | Other) -> None:
        match event:
            case Bytes():
                self._count(event)
            case Log():
                self._read(event.untrusted_text)
            case Fatal(untrusted_text):
                self.trouble = worse(self.trouble, trouble.of_end(untrusted_text))
            case Refused(untrusted_text):
                log.warning("openvpn: %s", shown(untrusted_text))
            case Other():
                pass

    def _read(self, untrusted_text: str) -> None:
        if found := _CIPHER.match(untrusted_text):
            self.cipher = found[1]
        why = trouble.of_log(untrusted_text)
        # Once the server was understood, the key fits, whoever else sends something.
        if not (self.answered and why == trouble.WRONG_KEY):
            self.trouble = worse(self.trouble, why)

    def _count(self, now: Bytes) -> None:
        """Begin anew when a tunnel only sends: nobody may be there any more."""
        before, self.carried = self.carried, now
        heard, spoke = now.received > before.received, now.sent > before.sent
        self._silent = 0 if heard or not self.connected else self._silent + spoke
        if self._silent >= SILENT:
            self._silent = 0
            self.restart(Trouble("the server went silent", 3))

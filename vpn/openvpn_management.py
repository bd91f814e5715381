# SPDX-License-Identifier: GPL-2.0-or-later
"""The words of OpenVPN's management interface, without a socket.

Lines of text in both directions (OpenVPN 2.6, ``doc/management-notes.txt``).
What the daemon says is untrusted: part of it comes from the server.  Pure.
"""

import re

from rules.model import Address, shown
from vpn.endpoints import TCP, UDP
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
from vpn.openvpn_pushed import READ
from vpn.openvpn_words import quoted

# Bytes of a line.  One of its log has up to 10,240 (ERR_BUF_SIZE, error.h), and a
# server makes it that long by the names in its certificate.
LONGEST = 1 << 14

_NUMBER = re.compile(r"[0-9]{1,19}")
_NEED = re.compile(r"Need '([^']*)' ([a-z/]+)(.*)")
_FAILED = re.compile(r"Verification Failed: '([^']*)'(.*)")


class ManagementError(ValueError):
    """A line that the management interface does not have."""


class Decoder:
    """Turns a stream of bytes, cut anywhere, into events.

    After a `ManagementError` it is of no use any more.
    """

    __slots__ = ("_untrusted", "_up", "_variables")

    def __init__(self) -> None:
        self._untrusted = bytearray()
        self._up = False
        self._variables: dict[str, str] | None = None

    def feed(self, untrusted_data: bytes) -> None:
        """Append what came."""
        self._untrusted += untrusted_data

    def next_event(self) -> Event | None:
        """Return the next event, or None until more is fed, or `ManagementError`."""
        while (end := self._untrusted.find(b"\n")) >= 0:
            untrusted_line = self._untrusted[:end].decode(errors="replace")
            del self._untrusted[: end + 1]
            event = self._event(untrusted_line.removesuffix("\r"))
            if event is not None:
                return event
        if len(self._untrusted) > LONGEST:
            raise ManagementError(f"a line over {LONGEST} bytes")
        return None

    def _event(self, untrusted_line: str) -> Event | None:
        """Return what a line says; None within an event of several lines."""
        if len(untrusted_line) > LONGEST:
            raise ManagementError(f"a line over {LONGEST} bytes")
        kind, colon, untrusted_rest = untrusted_line.partition(":")
        if kind == ">UPDOWN" and colon:
            return self._updown(untrusted_rest)
        if self._variables is not None:
            raise ManagementError(f"{shown(kind)} among variables")
        return _READERS.get(kind, _other)(untrusted_rest)

    def _updown(self, untrusted_rest: str) -> Event | None:
        if untrusted_rest in {"UP", "DOWN"}:
            self._up, self._variables = untrusted_rest == "UP", {}
            return None
        word, comma, variable = untrusted_rest.partition(",")
        if word != "ENV" or not comma or self._variables is None:
            raise ManagementError(f">UPDOWN:{shown(untrusted_rest)}")
        if variable == "END":
            found, self._variables = self._variables, None
            return Up(found) if self._up else Down()
        name, _, value = variable.partition("=")
        if READ.fullmatch(name):
            self._variables[name] = value
        return None


def begin(seconds: int) -> bytes:
    """Return the commands that make the daemon tell what it does.

    ``seconds`` is the time between two counts of bytes.
    """
    return f"state on\nlog on\nbytecount {seconds}\n".encode()


def release() -> bytes:
    """Return the command that ends a `Hold`."""
    return b"hold release\n"


def connect(address: Address, port: int) -> bytes:
    """Return the answer to a `Remote`: where to connect to."""
    return f"remote MOD {address} {port}\n".encode()


def call() -> bytes:
    """Return a command that changes nothing and is answered at once."""
    return b"pid\n"


def skip() -> bytes:
    """Return the answer to a `Remote` of the wrong protocol."""
    return b"remote SKIP\n"


def login(need: Need, given: Login) -> bytes:
    """Return the answer to a `Need` for a user name and a password."""
    what = quoted(need.what)
    user, password = quoted(given.user), quoted(given.password)
    return f"username {what} {user}\npassword {what} {password}\n".encode()


def reconnect() -> bytes:
    """Return the command to begin anew, with a `Hold`."""
    return b"signal SIGUSR1\n"


def _hold(_: str) -> Event:
    return Hold()


def _remote(untrusted_rest: str) -> Event:
    untrusted_proto = untrusted_rest.rpartition(",")[2]
    if untrusted_proto.startswith(("udp", "tcp")):
        return Remote(UDP if untrusted_proto.startswith("udp") else TCP)
    raise ManagementError(f">REMOTE:{shown(untrusted_rest)}")


def _state(untrusted_rest: str) -> Event:
    fields = untrusted_rest.split(",")
    if len(fields) < 3:  # noqa: PLR2004 - time, name, detail
        raise ManagementError(f">STATE:{shown(untrusted_rest)}")
    return State(fields[1], fields[2])


def _password(untrusted_rest: str) -> Event:
    if need := _NEED.fullmatch(untrusted_rest):
        return Need(need[1], need[2] == "username/password", bool(need[3].strip()))
    if failed := _FAILED.fullmatch(untrusted_rest):
        return Rejected(failed[1], failed[2].strip())
    return Other()  # an Auth-Token, which is the daemon's own


def _bytecount(untrusted_rest: str) -> Event:
    received, _, sent = untrusted_rest.partition(",")
    if not _NUMBER.fullmatch(received) or not _NUMBER.fullmatch(sent):
        raise ManagementError(f">BYTECOUNT:{shown(untrusted_rest)}")
    return Bytes(int(received), int(sent))


def _log(untrusted_rest: str) -> Event:
    fields = untrusted_rest.split(",", 2)
    if len(fields) < 3:  # noqa: PLR2004 - time, flags, text
        raise ManagementError(f">LOG:{shown(untrusted_rest)}")
    return Log(fields[1], fields[2])


def _other(_: str) -> Event:
    return Other()


_READERS = {
    ">HOLD": _hold,
    ">REMOTE": _remote,
    ">STATE": _state,
    ">PASSWORD": _password,
    ">BYTECOUNT": _bytecount,
    ">LOG": _log,
    ">FATAL": Fatal,
    "ERROR": Refused,
}

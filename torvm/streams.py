# SPDX-License-Identifier: GPL-2.0-or-later
"""Which circuit carries whose stream, in tor's own words (control-spec, 4.1.2).

A client's name stands in these events as the client wrote it, line breaks and all
(seen in tor 0.4.9.11, of DNSPort and SocksPort; the DNSPort of 0.4.9.15 refuses such
a name).  So who asks for a name has tor say here what it likes; where the agent asks
tor something, that would be the answer.
Therefore this is a connection of its own, on which nothing is asked.  Each line is
one whole event or nothing is believed any more, and tor is heard anew.

What a name cannot do is end the event that it is in, and begin one to which the rest
of tor's own then belongs.  By DNS a label is shorter than what has to stand before
the end of an event without a point (`LONGEST_LABEL`).  By SOCKS there is no such
limit, but tor refuses such a name and says so in the rest of the event, which is why
an event that says it is none.  Nor has a name the bytes to hold a whole event between
these two (`LONGEST_NAME`).
"""

import re
import select
import socket
import time
from collections.abc import Callable
from contextlib import suppress

from torvm import heard
from torvm.said import Stream, StreamsLost

PAUSE = 1.0  # seconds until tor is heard anew
CHUNK = 1 << 16  # bytes
LONGEST = 8192  # bytes of a line, with a SOCKS user and a password in it
LONGEST_NAME = 255  # bytes (RFC 1035, 2.3.4; RFC 1928, 5)
LONGEST_LABEL = 63  # bytes (RFC 1035, 2.3.4)
GREETED = (b"250 OK\r", b"250 OK\r")  # to AUTHENTICATE, and to SETEVENTS
FEWEST = 64  # bytes of what isolates a client's stream, as our listeners have it

_HEAD = rb'650 STREAM ([0-9]{1,20}) ([A-Z_]{1,20}) ([0-9]{1,20}) [^\s"=]*'
_WORDS = rb'((?: [A-Z_]{1,20}=(?:"(?:[^"\\]|\\.)*"|[^\s"]*))*?)'
_TAIL = rb" NYM_EPOCH=[0-9]{1,10} SESSION_GROUP=-?[0-9]{1,10} ISO_FIELDS="
_EVENT = re.compile(
    rb"%b:[0-9]{1,5}%b CLIENT_PROTOCOL=[A-Z0-9]{1,12}%b[A-Z_,]{%d,200}\r"
    % (_HEAD, _WORDS, _TAIL, FEWEST)
)
# To a relay that tor chose, for itself.
_OWN = re.compile(
    rb"%b\.\$[0-9A-F]{40}[^\s\"]{0,30}\.exit:[0-9]{1,5}%b CLIENT_PROTOCOL=UNKNOWN"
    rb"%b[A-Z_,]*\r" % (_HEAD, _WORDS, _TAIL)
)
# Nothing in quotation marks stands before either.
_SOURCE = re.compile(rb'(?: [A-Z_]+=[^\s"]*)*? SOURCE_ADDR=([^\s"]+):[0-9]+(?: |\Z)')
_REFUSED = re.compile(rb'(?: [A-Z_]+=[^\s"]*)*? REASON=SOCKS_PROTOCOL(?: |\Z)')


class Streams:
    """What is said of streams; readable, while it is heard, by way of ``ready``."""

    def __init__(
        self,
        path: str,
        ready: select.epoll,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._ready = ready
        self._clock = clock
        self._greeting = b""
        self._socket: socket.socket | None = None
        self._awaited: tuple[bytes, ...] = ()
        self._rest = b""
        self._again = 0.0

    def begin(self, cookie: bytes) -> None:
        """Hear tor from now on, which is known to be at ``path``."""
        self._greeting = f"AUTHENTICATE {cookie.hex()}\r\nSETEVENTS STREAM\r\n".encode()
        self._open()

    def handle(self) -> list[Stream | StreamsLost]:
        """Take what was said since."""
        if self._socket is None:
            if self._greeting and self._clock() >= self._again:
                self._open()
            return []
        found: list[Stream | StreamsLost] = []
        try:
            # No more at once: a client makes as many as it likes.
            untrusted_data = self._socket.recv(CHUNK)
        except BlockingIOError:
            return found
        except OSError:
            untrusted_data = b""
        *lines, self._rest = (self._rest + untrusted_data).split(b"\n")
        whole = bool(untrusted_data) and len(self._rest) <= LONGEST
        with suppress(ValueError):
            for untrusted_line in lines:
                found += self._read(untrusted_line)
            if whole:
                return found
        self.close()
        return [*found, StreamsLost()]

    def close(self) -> None:
        """Hear nothing more, for now."""
        if self._socket is not None:
            self._socket.close()  # and so it leaves the epoll set
            self._socket = None

    def _open(self) -> None:
        self._again = self._clock() + PAUSE
        self._rest, self._awaited = b"", GREETED
        made = socket.socket(socket.AF_UNIX)
        made.setblocking(False)  # noqa: FBT003
        try:
            made.connect(self._path)
            made.send(self._greeting)
        except OSError:
            made.close()
            return
        self._socket = made
        self._ready.register(made, select.EPOLLIN)

    def _read(self, untrusted_line: bytes) -> list[Stream]:
        """Return the event in a line, or ValueError."""
        if self._awaited:
            if untrusted_line != self._awaited[0]:
                raise ValueError("not greeted")
            self._awaited = self._awaited[1:]
            return []
        if _OWN.fullmatch(untrusted_line):
            return []
        found = _EVENT.fullmatch(untrusted_line)
        if found is None:
            raise ValueError("not one whole event")
        if _REFUSED.match(found[4]):
            return []
        source = _SOURCE.match(found[4])
        number, word, circuit = (found[part].decode("ascii") for part in (1, 2, 3))
        whence = None if source is None else source[1].decode("ascii", "replace")
        return [heard.stream(number, word, circuit, whence)]

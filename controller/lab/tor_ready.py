# SPDX-License-Identifier: GPL-2.0-or-later
"""Wait until a private Tor network works, by what its tors say.

They say it by the control protocol (control-spec.txt) and by SOCKS (RFC 1928),
both on unix sockets.  TimeoutError when a deadline of `time.monotonic` is over.
"""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FIT = {"Guard", "HSDir", "Running", "Valid"}  # flags of dir-spec.txt
AGAIN = 2.0  # seconds until a page is asked for again, if no event comes
NO_PASSWORD, ACCEPTED = b"\5\1\0", b"\5\0"
BY_NAME, SUCCEEDED = b"\5\1\0\3", b"\5\0"
HTTP = 80


class Control:
    """A conversation with one tor, which is ours and asks for no password."""

    def __init__(self, made: socket.socket, deadline: float) -> None:
        self._socket = made
        self._deadline = deadline
        self._buffer = b""
        self.ask("AUTHENTICATE")

    def ask(self, command: str) -> list[str]:
        """Return the lines of a reply; events that come between are lost."""
        self._socket.sendall(f"{command}\r\n".encode())
        found = [self.line()]
        while not found[-1].startswith(("250 ", "5")):
            found.append(self.line())
        if found[-1].startswith("5"):
            raise ConnectionError(f"tor: {command}: {found[-1]}")
        return found

    def line(self, patience: float = 3600.0) -> str:
        """Return the next line, whatever it belongs to."""
        while b"\r\n" not in self._buffer:
            self._socket.settimeout(min(patience, _left(self._deadline)))
            came = self._socket.recv(65536)
            if not came:
                raise ConnectionError("tor has ended")
            self._buffer += came
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line.decode("ascii", "replace")


def agreed(folder: Path, relays: int, deadline: float) -> None:
    """Wait until the tor of a folder knows so many relays that are fit for all."""
    with _connected(folder / "control", deadline) as made:
        tor = Control(made, deadline)
        tor.ask("SETEVENTS NEWCONSENSUS")
        while _fit(tor.ask("GETINFO ns/all")) < relays:
            while tor.line() != "650 OK":  # the end of an event
                pass


def published(folder: Path, relays: int, deadline: float) -> None:
    """Wait until a tor that was started just now has told so many of its onion."""
    with _connected(folder / "control", deadline) as made:
        tor = Control(made, deadline)
        tor.ask("SETEVENTS HS_DESC")
        told: set[str] = set()
        while len(told) < relays:
            # 650 HS_DESC UPLOADED address UNKNOWN relay
            words = tor.line().split()
            if words[2:3] == ["UPLOADED"]:
                told.add(words[5])


def fetched(folder: Path, host: str, deadline: float) -> None:
    """Wait until the tor of a folder brings a page of a host."""
    with _connected(folder / "control", deadline) as made:
        tor = Control(made, deadline)
        tor.ask("SETEVENTS STATUS_CLIENT HS_DESC")
        while not _page(folder / "socks", host, deadline):
            with suppress(TimeoutError):
                tor.line(AGAIN)
            _left(deadline)


def _fit(lines: list[str]) -> int:
    """Count the relays of ``GETINFO ns/all`` with every flag."""
    return sum(line.startswith("s ") and set(line.split()) >= FIT for line in lines)


def _page(socks: Path, host: str, deadline: float) -> bool:
    name = host.encode()
    with _connected(socks, deadline) as made:
        made.sendall(NO_PASSWORD)
        made.recv(len(ACCEPTED))
        made.sendall(BY_NAME + bytes([len(name)]) + name + HTTP.to_bytes(2, "big"))
        made.sendall(b"GET / HTTP/1.1\r\nHost: " + name + b"\r\n\r\n")
        # The reply has an address of either family, which tells nothing.
        came = made.makefile("rb").read()
    return came.startswith(SUCCEEDED) and b"HTTP/1.1 200" in came


@contextmanager
def _connected(path: Path, deadline: float) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as made:
        made.settimeout(_left(deadline))
        made.connect(str(path))
        yield made


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left

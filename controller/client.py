# SPDX-License-Identifier: GPL-2.0-or-later
"""Asks the daemon: one request over its unix socket, and what comes of it."""

import socket
import time
from collections.abc import Callable
from pathlib import Path

from controller.admin import (
    MAX_REPLY,
    Answer,
    Failure,
    Lines,
    Progress,
    ProtocolError,
    Request,
    decode_reply,
    encode,
)

SOCKET = Path("/run/ravelin/admin.sock")
PATIENCE = 1.0  # seconds until progress is worth telling
CHUNK = 65536  # bytes


class NotRunningError(ConnectionError):
    """No daemon listens on ``socket``, which a crash leaves behind."""

    def __init__(self, socket: Path) -> None:
        super().__init__(str(socket))
        self.socket = socket


class NotAllowedError(PermissionError):
    """The socket is not for this user."""


def ask(path: Path, request: Request, tell: Callable[[str], None]) -> Answer | Failure:
    """Send a request to the daemon at ``path`` and wait for what comes of it.

    What the daemon does goes to ``tell`` when it takes longer than `PATIENCE`.
    Raise `NotRunningError`, `NotAllowedError`, `ProtocolError` or `OSError`.
    """
    with socket.socket(socket.AF_UNIX) as daemon:
        try:
            daemon.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NotRunningError(path) from error
        except PermissionError as error:
            raise NotAllowedError(str(path)) from error
        daemon.sendall(encode(request))
        return _wait(daemon, tell)


def _wait(daemon: socket.socket, tell: Callable[[str], None]) -> Answer | Failure:
    lines = Lines(MAX_REPLY)
    patient_until = time.monotonic() + PATIENCE
    held: str | None = None
    while True:
        left = patient_until - time.monotonic()
        if left <= 0 and held is not None:
            tell(held)
            held = None
        daemon.settimeout(left if left > 0 else None)
        try:
            data = daemon.recv(CHUNK)
        except TimeoutError:
            continue
        if not data:
            raise ProtocolError("the daemon hung up")
        for reply in map(decode_reply, lines.feed(data)):
            match reply:
                case Progress(text):
                    if patient_until <= time.monotonic():
                        tell(text)
                    else:
                        held = text
                case Answer() | Failure():
                    return reply

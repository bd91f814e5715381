# SPDX-License-Identifier: GPL-2.0-or-later
"""An agent that is a child of ours: its end, its voice and its log."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

LOG_LIMIT = 1 << 20  # bytes, of the log and of the one before it
LAST_WORDS = 200  # characters


@dataclass(frozen=True, slots=True)
class Agent:
    """A `controller.ports.Process`; its output goes to ``log`` in append mode."""

    pid: int
    pidfd: int
    notify: socket.socket | None
    log: Path

    def kill(self, number: int) -> None:
        """Send it a signal; nothing happens if it has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def trim_log(self) -> None:
        """Keep its log within bounds."""
        trim(self.log)

    def finish(self) -> str:
        """Let go of a process that ended; return why it ended, for people."""
        _, status = os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        if self.notify is not None:
            self.notify.close()
        code = os.waitstatus_to_exitcode(status)
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        untrusted_words = self._untrusted_last_words()
        return f"{how}: {untrusted_words}" if untrusted_words else how

    def _untrusted_last_words(self) -> str:
        with self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - LAST_WORDS))
            untrusted_lines = log.read().decode("ascii", "replace").split("\n")
        # What wireguard-go says at each start is in a box drawn of other letters.
        begun = (x for x in reversed(untrusted_lines) if "!" <= x[:1] <= "~")
        untrusted_last = next(begun, "")
        return "".join(
            c if c.isascii() and c.isprintable() else "?" for c in untrusted_last
        )


def trim(log: Path) -> None:
    """Move a log aside once it is too long; who writes it goes on at its start."""
    with suppress(OSError):  # a full disk, which must not end the controller
        if log.stat().st_size > LOG_LIMIT:
            before = log.with_suffix(".log.1")
            before.write_bytes(log.read_bytes()[-LOG_LIMIT:])
            os.truncate(log, 0)


@contextmanager
def open_log(path: Path) -> Iterator[int]:
    """Give a descriptor that appends for a while; what was there is the log before."""
    with suppress(FileNotFoundError):
        path.rename(path.with_suffix(".log.1"))
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)

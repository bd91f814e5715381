# SPDX-License-Identifier: GPL-2.0-or-later
"""Run a program whose words are not trusted: for a while, and to some length."""

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress

from controller.readable import readable


def hear(argv: Sequence[str], *, within: float, longest: int) -> tuple[int, bytes]:
    """Return the exit status of a program, and the bytes that it has printed.

    TimeoutError after ``within`` seconds, OSError for more than ``longest`` bytes;
    the program, and all that it has started, is killed then.
    """
    deadline = time.monotonic() + within
    with (
        subprocess.Popen(  # noqa: S603 (the daemon's words)
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as program,
        ExitStack() as on_failure,
    ):
        on_failure.callback(_kill, program.pid)
        heard = b""
        for untrusted_data in _pieces(program, deadline):
            heard += untrusted_data
            if len(heard) > longest:
                raise OSError(f"more than {longest} bytes came back")
        status = _status(program, deadline)
        on_failure.pop_all()
    return status, heard


def _pieces(program: subprocess.Popen[bytes], deadline: float) -> Iterator[bytes]:
    """Yield what the program prints, until it closes its end."""
    if program.stdout is None:
        raise ValueError("expected a program with a pipe")
    pipe = program.stdout.fileno()
    while readable(pipe, deadline - time.monotonic()):
        data = os.read(pipe, select.PIPE_BUF)
        if not data:
            return
        yield data
    raise TimeoutError("no answer in time")


def _status(program: subprocess.Popen[bytes], deadline: float) -> int:
    try:
        return program.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise TimeoutError("no answer in time") from None


def _kill(leader: int) -> None:
    # Nobody has waited for it, so that its number is nobody else's.
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)

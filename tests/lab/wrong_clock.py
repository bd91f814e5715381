# SPDX-License-Identifier: GPL-2.0-or-later
"""A daemon whose wall clock is wrong, while everybody else's is right.

A script covers the program's file, and starts a copy of it with `wrong_clock.c` read
before the C library.  Only what starts meanwhile is concerned, and only in the mount
namespace of the caller, which must be one of its own.  (libfaketime does it too,
but its way to the clock at times keeps tor's threads from starting.)
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from controller.syscalls import MS_BIND, mount, unmount

SOURCE = Path(__file__).with_suffix(".c")
PLACE = Path("/etc/wrong-clock")  # which each domain sees
# bash, for its exec can name a program as if it were another.
SCRIPT = """#!/bin/bash
export LD_PRELOAD={library} WRONG_CLOCK={offset}
exec -a {program} {copy} "$@" {more}
"""


@dataclass(frozen=True)
class Clock:
    """The clock of one program."""

    file: Path

    def is_wrong_by(self, seconds: int) -> None:
        """Be ahead by so much from this moment on; behind, if it is negative."""
        with self.file.open("r+b") as file:
            file.write(seconds.to_bytes(8, "little", signed=True))


@contextmanager
def wrong_clock(program: str, more: str = "") -> Iterator[Clock]:
    """Give the clock of a program, which is right at first.

    ``more`` are words that are added to those it is started with.
    """
    PLACE.mkdir()
    name = Path(program).name
    copy, script = PLACE / name, PLACE / f"{name}.script"
    library, offset = PLACE / "wrong_clock.so", PLACE / "offset"
    words = {"library": library, "offset": offset, "copy": copy, "more": more}
    subprocess.run(["tcc", "-shared", "-o", library, SOURCE], check=True)
    offset.write_bytes(bytes(8))
    shutil.copy(program, copy)
    script.write_text(SCRIPT.format(program=program, **words))
    script.chmod(0o755)
    mount(str(script), program, None, MS_BIND)
    try:
        yield Clock(offset)
    finally:
        unmount(program)
        shutil.rmtree(PLACE)

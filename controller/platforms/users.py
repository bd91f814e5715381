# SPDX-License-Identifier: GPL-2.0-or-later
"""Users that nobody is on this machine, for programs that are to be nobody else.

Who shares a uid with another program may signal it, trace it, and use its files.
"""

import grp
import pwd
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from controller.ports import PlatformError

IDS = ("Uid:", "Gid:", "Groups:")  # lines of proc_pid_status(5)


def unused(numbers: Iterable[int]) -> int:
    """Return the first number that is nobody's, neither as user nor as group.

    No process has it, in any of its roles, and the user database (nsswitch.conf(5),
    which knows the transient users of systemd) has no name for it.
    `PlatformError` if there is none.
    """
    taken = _of_processes()
    for number in numbers:
        if number not in taken and not _has_a_name(number):
            return number
    raise PlatformError("every user that an agent could be is somebody already")


def _of_processes() -> set[int]:
    """Return the users and groups of all processes, in each of their roles."""
    found: set[int] = set()
    for status in Path("/proc").glob("[1-9]*/status"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            for line in status.read_text(errors="replace").splitlines():
                if line.startswith(IDS):
                    found.update(map(int, line.split()[1:]))
    return found


def _has_a_name(number: int) -> bool:
    with suppress(KeyError):
        pwd.getpwuid(number)
        return True
    with suppress(KeyError):
        grp.getgrgid(number)
        return True
    return False

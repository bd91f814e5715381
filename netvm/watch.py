# SPDX-License-Identifier: GPL-2.0-or-later
"""Wake up when what is behind a path changes (inotify(7), through libc).

Python has no inotify.  A path is followed link by link: every directory on the
way is watched, so that a replaced file, a new target of a symbolic link and a
directory that comes into being all wake the reader, who then reads anew.
"""

import ctypes
import os
from contextlib import suppress
from pathlib import Path

# linux/inotify.h
CLOSE_WRITE = 0x008
MOVED_FROM, MOVED_TO = 0x040, 0x080
CREATE, DELETE = 0x100, 0x200
DELETE_SELF, MOVE_SELF = 0x400, 0x800
ONLY_DIRECTORY = 0x01000000
MASK_ADD = 0x20000000  # events asked for before stay

IN_DIRECTORY = (
    MOVED_FROM | MOVED_TO | CREATE | DELETE | DELETE_SELF | MOVE_SELF | ONLY_DIRECTORY
)
IN_FILE = CLOSE_WRITE

MAX_LINKS = 40  # as the kernel (path_resolution(7))
DRAIN = 65536

_libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """A file descriptor that is readable when a path may read differently.

    Raises `OSError` when the kernel has no watches left.
    """

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._follow_all()

    def fileno(self) -> int:
        """Return the descriptor, the same for the life of this object."""
        return self._fd

    def handle(self) -> bool:
        """Clear the wake-up; return whether there was one.  Read afterwards."""
        woken = False
        try:
            while os.read(self._fd, DRAIN):
                woken = True
        except BlockingIOError:
            pass
        if woken:
            self._follow_all()
        return woken

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._fd)

    def _follow_all(self) -> None:
        for path in self._paths:
            self._follow(path)

    def _follow(self, path: Path) -> None:
        at = Path("/")
        steps = list(reversed(path.absolute().parts[1:]))
        links = 0
        while steps and links <= MAX_LINKS:
            # Watch first, look second: a change in between is not lost.
            self._add(at, IN_DIRECTORY)
            step = steps.pop()
            if step == "..":
                at = at.parent
                continue
            try:
                target = (at / step).readlink()
            except OSError:  # not a link, or not there (yet)
                at /= step
                continue
            links += 1
            if target.is_absolute():
                at = Path("/")
            steps += reversed(target.relative_to(target.anchor).parts)
        self._add(at, IN_FILE)

    def _add(self, path: Path, events: int) -> None:
        # What is not there has a parent directory that is watched.
        with suppress(FileNotFoundError, NotADirectoryError):
            _checked(
                _libc.inotify_add_watch(self._fd, os.fsencode(path), events | MASK_ADD)
            )


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"inotify: {os.strerror(number)}")
    return result

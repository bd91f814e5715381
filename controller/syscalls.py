# SPDX-License-Identifier: GPL-2.0-or-later
"""The calls of Linux that Python 3.11 has no name for, such as mount(2) and setns(2).

Each raises OSError, with the path it was about where there is one.
"""

import ctypes
import os
import signal

CLONE_NEWNS = 0x00020000  # linux/sched.h
CLONE_NEWUTS = 0x04000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1  # linux/mount.h
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2  # linux/fs.h
INERT = MS_NOSUID | MS_NODEV | MS_NOEXEC

PR_SET_PDEATHSIG = 1  # linux/prctl.h

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (
    *(ctypes.c_char_p,) * 3,
    ctypes.c_ulong,
    ctypes.c_char_p,
)
_libc.prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)


def mount(
    source: str, target: str, kind: str | None, flags: int, options: str = ""
) -> None:
    """Mount a file system; ``kind`` is None for a bind or a change of propagation."""
    done = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        None if kind is None else kind.encode(),
        flags,
        os.fsencode(options),
    )
    _check(done, target)


def unmount(target: str) -> None:
    """Detach the file system at a path; it ends when nobody uses it any more."""
    _check(_libc.umount2(os.fsencode(target), MNT_DETACH), target)


def unshare(flags: int, path: str | None = None) -> None:
    """Leave the namespaces that the ``CLONE_NEW…`` flags name."""
    _check(_libc.unshare(flags), path)


def setns(descriptor: int, kind: int, path: str) -> None:
    """Enter the namespace of an open file, which is of the ``CLONE_NEW…`` kind."""
    _check(_libc.setns(descriptor, kind), path)


def die_with_parent(number: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel signal this process when its parent ends (prctl(2))."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0), None)


def _check(result: int, path: str | None) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)

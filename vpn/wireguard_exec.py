# SPDX-License-Identifier: GPL-2.0-or-later
"""Become wireguard-go without a capability.

Given an open tun device and an open socket, wireguard-go still makes calls at
its start that it need not.  A filter answers these and no others:

* it sets the device's MTU to 1420, which takes CAP_NET_ADMIN.  The agent has set
  another already; the answer is success.
* it watches the file of its socket to stop when somebody removes it.  Nobody but
  the agent ever reaches that socket, so it has no file: the watch is answered
  with success, the look whether the file is there (lstat(2)) with "permission
  denied", which it takes for "perhaps".

Everything else the kernel judges as for anybody without a capability.
"""

import errno
import sys

from agent.filtered import (
    AARCH64,
    ANSWER,
    FOURTH,
    SECOND,
    X86_64,
    answer,
    become,
    program,
)

SIOCSIFMTU = 0x8922  # linux/sockios.h
NOFOLLOW = 0x100  # AT_SYMLINK_NOFOLLOW: makes fstatat(2) an lstat(2)


def _filter(
    architecture: int, *, ioctl: int, inotify_add_watch: int, newfstatat: int
) -> bytes:
    return program(
        architecture,
        *answer(inotify_add_watch, ANSWER),
        *answer(ioctl, ANSWER, (SECOND, frozenset({SIOCSIFMTU}))),
        *answer(newfstatat, ANSWER | errno.EACCES, (FOURTH, frozenset({NOFOLLOW}))),
    )


FILTERS = {
    "x86_64": _filter(X86_64, ioctl=16, inotify_add_watch=254, newfstatat=262),
    "aarch64": _filter(AARCH64, ioctl=29, inotify_add_watch=27, newfstatat=79),
}

if __name__ == "__main__":
    sys.exit(become(sys.argv[1:], FILTERS))

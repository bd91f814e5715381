# SPDX-License-Identifier: GPL-2.0-or-later
"""Become the program of a transport, unable to share a port with tor.

tor makes its sockets for questions so that their ports can be shared (SO_REUSEADDR).
Of UDP that lets any user of the domain bind the same port, and who was last gets all
that comes (socket(7); seen with tor 0.4.9 on Linux 6.18).  A transport that was taken
over could read what every client asks, tell its bridge, and answer.

A filter answers the call that would ask for it with success, without asking: programs
do so of habit, and do without.  There is no other way to set it but io_uring, and that
there is not, nor the same calls by other numbers (x32).
"""

import errno
import sys

from agent.filtered import (
    AARCH64,
    ANSWER,
    IF_AT_LEAST,
    KILL,
    RETURN,
    SECOND,
    THIRD,
    X86_64,
    answer,
    become,
    program,
)

_IO_URING_SETUP = 425  # of every architecture
_OTHER_ABI = 0x40000000  # __X32_SYSCALL_BIT
_SOL_SOCKET, _REUSE_ADDRESS, _REUSE_PORT = 1, 2, 15  # asm-generic/socket.h


def _filter(architecture: int, *, setsockopt: int) -> bytes:
    level = SECOND, frozenset({_SOL_SOCKET})
    option = THIRD, frozenset({_REUSE_ADDRESS, _REUSE_PORT})
    return program(
        architecture,
        (IF_AT_LEAST, 0, 1, _OTHER_ABI),
        (RETURN, 0, 0, KILL),
        *answer(_IO_URING_SETUP, ANSWER | errno.ENOSYS),
        *answer(setsockopt, ANSWER, level, option),
    )


FILTERS = {
    "x86_64": _filter(X86_64, setsockopt=54),
    "aarch64": _filter(AARCH64, setsockopt=208),
}

if __name__ == "__main__":
    sys.exit(become(sys.argv[1:], FILTERS))

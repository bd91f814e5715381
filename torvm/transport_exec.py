# SPDX-License-Identifier: GPL-2.0-or-later
"""Become the program of a transport, unable to share a port with tor.

tor makes its sockets for questions so that their ports can be shared (SO_REUSEADDR).
Of UDP that lets any user of the domain bind the same port, and who was last gets all
that comes (socket(7); seen with tor 0.4.9 on Linux 6.18).  A transport that was taken
over could read what every client asks, tell its bridge, and answer.

A filter (seccomp(2)) answers the call that would ask for it with success, without
asking: programs do so of habit, and do without.  There is no other way to set it but
io_uring, and that there is not.  The filter stays for the life of the process.
"""

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass

# linux/prctl.h, linux/seccomp.h
_NO_NEW_PRIVS, _SECCOMP, _FILTER = 38, 22, 2
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_SUCCESS, _NO_SUCH_CALL = _ERRNO, _ERRNO | errno.ENOSYS
# linux/filter.h: load a word; jump if equal, if greater or equal; return.  struct
# seccomp_data has the call's number at 0, the architecture at 4 and 8 bytes for each
# argument from 16 on.
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER, _ARCHITECTURE, _SECOND, _THIRD = 0, 4, 24, 32
_INSTRUCTION = struct.Struct("=HBBI")

_IO_URING_SETUP = 425  # of every architecture
_OTHER_ABI = 0x40000000  # __X32_SYSCALL_BIT: the same calls by other numbers
_SOL_SOCKET, _REUSE_ADDRESS, _REUSE_PORT = 1, 2, 15  # asm-generic/socket.h


@dataclass(frozen=True, slots=True)
class Machine:
    """An architecture (linux/audit.h), and its number of setsockopt(2)."""

    audit: int
    setsockopt: int


MACHINES = {
    "x86_64": Machine(0xC000003E, 54),
    "aarch64": Machine(0xC00000B7, 208),
}


class NoFilterError(OSError):
    """The filter cannot be installed, so the program must not start."""


def program(machine: Machine) -> bytes:
    """Return the filter as BPF instructions (kernel: seccomp_filter.rst)."""
    instructions = (
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_IF_EQUAL, 1, 0, machine.audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_IF_AT_LEAST, 0, 1, _OTHER_ABI),
        (_RETURN, 0, 0, _KILL),
        (_IF_EQUAL, 0, 1, _IO_URING_SETUP),
        (_RETURN, 0, 0, _NO_SUCH_CALL),
        (_IF_EQUAL, 0, 6, machine.setsockopt),
        (_LOAD, 0, 0, _SECOND),
        (_IF_EQUAL, 0, 4, _SOL_SOCKET),
        (_LOAD, 0, 0, _THIRD),
        (_IF_EQUAL, 1, 0, _REUSE_ADDRESS),
        (_IF_EQUAL, 0, 1, _REUSE_PORT),
        (_RETURN, 0, 0, _SUCCESS),
        (_RETURN, 0, 0, _ALLOW),
    )
    return b"".join(_INSTRUCTION.pack(*each) for each in instructions)


def install(name: str) -> None:
    """Put the filter on this process; ``name`` is the machine's (uname -m).

    Raises `NoFilterError`.
    """
    if name not in MACHINES:
        raise NoFilterError(f"no filter of system calls for {name}")
    code = program(MACHINES[name])
    libc = ctypes.CDLL(None, use_errno=True)
    held = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: the number of instructions, and where they are.
    length = len(code) // _INSTRUCTION.size
    sock_fprog = struct.pack("@HP", length, ctypes.addressof(held))
    for call in ((_NO_NEW_PRIVS, 1, 0, 0, 0), (_SECCOMP, _FILTER, sock_fprog, 0, 0)):
        if libc.prctl(*call):
            number = ctypes.get_errno()
            raise NoFilterError(number, f"seccomp: {os.strerror(number)}")


def main(argv: Sequence[str]) -> int:
    """Install the filter and become the program ``argv``; return only if not."""
    try:
        install(platform.machine())
        os.execv(argv[0], list(argv))  # noqa: S606 - no shell is the point
    except OSError as error:
        sys.stderr.write(f"{error}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

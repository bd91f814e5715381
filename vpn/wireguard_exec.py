# SPDX-License-Identifier: GPL-2.0-or-later
"""Become wireguard-go without a capability.

Given an open tun device and an open socket, wireguard-go still makes calls at
its start that it need not.  A filter (seccomp(2)) answers these and no others:

* it sets the device's MTU to 1420, which takes CAP_NET_ADMIN.  The agent has set
  another already; the answer is success.
* it watches the file of its socket to stop when somebody removes it.  Nobody but
  the agent ever reaches that socket, so it has no file: the watch is answered
  with success, the look whether the file is there (lstat(2)) with "permission
  denied", which it takes for "perhaps".

Everything else the kernel judges as for anybody without a capability.  The
filter goes through execve(2) and stays for the life of the process.
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
_SUCCESS, _DENIED = _ERRNO, _ERRNO | errno.EACCES
# linux/filter.h: load a word; jump if equal; return.  struct seccomp_data has the
# call's number at 0, the architecture at 4 and 8 bytes for each argument from 16 on.
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER, _ARCHITECTURE, _SECOND, _FOURTH = 0, 4, 24, 40
_INSTRUCTION = struct.Struct("=HBBI")

SIOCSIFMTU = 0x8922  # linux/sockios.h
NOFOLLOW = 0x100  # AT_SYMLINK_NOFOLLOW: makes fstatat(2) an lstat(2)

Instruction = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Machine:
    """An architecture (linux/audit.h), and its numbers of the calls."""

    audit: int
    ioctl: int
    inotify_add_watch: int
    newfstatat: int


MACHINES = {
    "x86_64": Machine(0xC000003E, 16, 254, 262),
    "aarch64": Machine(0xC00000B7, 29, 27, 79),
}


class NoFilterError(OSError):
    """The filter cannot be installed, so wireguard-go would not start."""


def program(machine: Machine) -> bytes:
    """Return the filter as BPF instructions (kernel: seccomp_filter.rst)."""
    instructions: list[Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_IF_EQUAL, 1, 0, machine.audit),
        (_RETURN, 0, 0, _KILL),  # another architecture has other numbers
        (_LOAD, 0, 0, _NUMBER),
        *_answer(machine.inotify_add_watch, _SUCCESS),
        *_answer(machine.ioctl, _SUCCESS, (_SECOND, SIOCSIFMTU)),
        *_answer(machine.newfstatat, _DENIED, (_FOURTH, NOFOLLOW)),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(_INSTRUCTION.pack(*each) for each in instructions)


def _answer(
    call: int, answer: int, only: tuple[int, int] | None = None
) -> list[Instruction]:
    """Answer a call; with ``only`` where the word at that offset has that value.

    The number of the call is loaded before and after.
    """
    if only is None:
        return [(_IF_EQUAL, 0, 1, call), (_RETURN, 0, 0, answer)]
    offset, value = only
    return [
        (_IF_EQUAL, 0, 4, call),
        (_LOAD, 0, 0, offset),
        (_IF_EQUAL, 0, 1, value),
        (_RETURN, 0, 0, answer),
        (_LOAD, 0, 0, _NUMBER),
    ]


def install(name: str) -> None:
    """Put the filter on this process; ``name`` is the machine's (uname -m).

    Raises `NoFilterError`.
    """
    if name not in MACHINES:
        raise NoFilterError(f"wireguard-go without a capability: not on {name}")
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

# SPDX-License-Identifier: GPL-2.0-or-later
"""Become a daemon whose system calls are filtered (seccomp(2)).

A filter answers some calls in the place of the kernel, and lets all others be judged
as ever.  It goes through execve(2) and stays for the life of the process.
"""

import ctypes
import os
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

RAVELIN = ("/usr/bin/python3", "-I", str(Path(__file__).parents[1]))
"""The words before the name of one of Ravelin's programs (``__main__.py``)."""

# linux/prctl.h, linux/seccomp.h
_NO_NEW_PRIVS, _SECCOMP, _FILTER = 38, 22, 2
ALLOW, ANSWER, KILL = 0x7FFF0000, 0x00050000, 0x80000000
"""What becomes of a call; with an errno in its lowest bits ``ANSWER`` is that error."""

# linux/filter.h: load a word; jump if equal, if greater or equal; return.  struct
# seccomp_data has the call's number at 0, the architecture at 4 and 8 bytes for each
# argument from 16 on.
LOAD, IF_EQUAL, IF_AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
NUMBER, ARCHITECTURE, SECOND, THIRD, FOURTH = 0, 4, 24, 32, 40
_INSTRUCTION = struct.Struct("=HBBI")

Instruction = tuple[int, int, int, int]
"""A code, how many instructions to skip if it is so and if it is not, and a value."""

X86_64, AARCH64 = 0xC000003E, 0xC00000B7  # linux/audit.h


class NoFilterError(OSError):
    """The filter cannot be installed, so the daemon must not start."""


def program(architecture: int, *answers: Instruction) -> bytes:
    """Return a filter as BPF instructions (kernel: seccomp_filter.rst).

    ``answers`` follow the number of the call, and what they leave is allowed.  By
    another architecture the same numbers would be other calls.
    """
    instructions = (
        (LOAD, 0, 0, ARCHITECTURE),
        (IF_EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
        *answers,
        (RETURN, 0, 0, ALLOW),
    )
    return b"".join(_INSTRUCTION.pack(*each) for each in instructions)


def answer(
    call: int, what: int, *words: tuple[int, frozenset[int]]
) -> list[Instruction]:
    """Return what answers a call where the word at each offset has one of some values.

    The number of the call is loaded before and after.
    """
    found: list[Instruction] = [(RETURN, 0, 0, what)]
    for offset, values in reversed(words):
        *others, last = sorted(values)
        ways = [(IF_EQUAL, len(others) - n, 0, each) for n, each in enumerate(others)]
        ways.append((IF_EQUAL, 0, len(found), last))
        found = [(LOAD, 0, 0, offset), *ways, *found]
    if words:
        found.append((LOAD, 0, 0, NUMBER))
    return [(IF_EQUAL, 0, len(found), call), *found]


def install(filters: Mapping[str, bytes], name: str) -> None:
    """Put the filter of a machine on this process, or raise `NoFilterError`."""
    if name not in filters:
        raise NoFilterError(f"no filter of system calls for {name}")
    code = filters[name]
    libc = ctypes.CDLL(None, use_errno=True)
    held = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: the number of instructions, and where they are.
    length = len(code) // _INSTRUCTION.size
    sock_fprog = struct.pack("@HP", length, ctypes.addressof(held))
    for call in ((_NO_NEW_PRIVS, 1, 0, 0, 0), (_SECCOMP, _FILTER, sock_fprog, 0, 0)):
        if libc.prctl(*call):
            number = ctypes.get_errno()
            raise NoFilterError(number, f"seccomp: {os.strerror(number)}")


def become(argv: Sequence[str], filters: Mapping[str, bytes]) -> int:
    """Install the filter of this machine and become ``argv``; return only if not.

    ``filters`` are by the machine's name (uname -m).
    """
    try:
        install(filters, os.uname().machine)
        os.execv(argv[0], list(argv))  # noqa: S606 - no shell is the point
    except OSError as error:
        sys.stderr.write(f"{error}\n")
    return 1

# SPDX-License-Identifier: GPL-2.0-or-later
"""Give up what is needed at the start only (capset(2))."""

import ctypes
import os
from enum import IntEnum


class Capability(IntEnum):
    """Those of capabilities(7) that an agent starts with and gives up."""

    NET_BIND_SERVICE = 10
    NET_RAW = 13


_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3
_WORDS = 2  # of 32 bits, low ones first

_libc = ctypes.CDLL(None, use_errno=True)


def give_up(*capabilities: Capability) -> None:
    """Give these up for good, before there is a second thread; raise `OSError`.

    The bounding set keeps them, but under no_new_privs no program of ours gets
    them from there (prctl(2)).
    """
    header = (ctypes.c_uint32 * 2)(_VERSION, 0)  # 0: this thread
    # effective, permitted, inheritable; then the same of the high words
    sets = (ctypes.c_uint32 * (3 * _WORDS))()
    _checked(_libc.capget(header, sets))
    mask = sum(1 << capability for capability in capabilities)
    for place in range(3):
        sets[place] &= ~mask
    _checked(_libc.capset(header, sets))


def _checked(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"capabilities: {os.strerror(number)}")

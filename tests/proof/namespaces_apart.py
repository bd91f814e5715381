# SPDX-License-Identifier: GPL-2.0-or-later
"""A network namespace to be in for a while."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_CLONE_NEWNET = 0x40000000


@contextmanager
def apart() -> Iterator[None]:
    """Enter a network namespace that ends with the context."""
    libc = ctypes.CDLL(None, use_errno=True)
    with ExitStack() as stack:
        home = os.open("/proc/self/ns/net", os.O_RDONLY)
        stack.callback(os.close, home)
        assert libc.unshare(_CLONE_NEWNET) == 0
        stack.callback(libc.setns, home, _CLONE_NEWNET)
        yield

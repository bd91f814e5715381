# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine of the test's own: its /run and /etc are copies that end with it."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from controller.syscalls import CLONE_NEWNS, MS_PRIVATE, MS_REC, mount, unshare

SCRATCH = "/run/.scratch"


@contextmanager
def own_machine() -> Iterator[None]:
    """Give this process an empty /run and an /etc of its own, for a while."""
    here = Path.cwd()
    home = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    unshare(CLONE_NEWNS)
    try:
        mount("none", "/", None, MS_REC | MS_PRIVATE)
        mount("tmpfs", "/run", "tmpfs", 0)
        for each in ("upper", "work"):
            Path(SCRATCH, each).mkdir(parents=True)
        layers = f"lowerdir=/etc,upperdir={SCRATCH}/upper,workdir={SCRATCH}/work"
        mount("overlay", "/etc", "overlay", 0, layers)
        yield
    finally:
        assert ctypes.CDLL(None, use_errno=True).setns(home, CLONE_NEWNS) == 0
        os.close(home)
        os.chdir(here)

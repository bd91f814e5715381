# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine of the test's own: its /run and /etc are copies that end with it."""

import ctypes
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from controller.syscalls import CLONE_NEWNS, MS_PRIVATE, MS_REC, mount, unshare

MORE_FILES = 1100  # than select(2) knows of
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


@contextmanager
def many_files() -> Iterator[None]:
    """Have so many files open that the next ones have numbers above 1023."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (2 * MORE_FILES, hard))
    reading, writing = os.pipe()
    copies = [os.dup(reading) for _ in range(MORE_FILES)]
    try:
        yield
    finally:
        for each in (reading, writing, *copies):
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def no_more_files() -> Iterator[None]:
    """Let this process open no file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    next_one = os.dup(0)
    os.close(next_one)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next_one, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

# SPDX-License-Identifier: GPL-2.0-or-later
"""Network namespaces for tests of what talks to the kernel."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controller import namespaces

Shell = Callable[[str], str]


@pytest.fixture
def other_net(tmp_path: Path) -> Iterator[Path]:
    """Give an empty network namespace that the test is not in."""
    path = tmp_path / "other"
    namespaces.create(path)
    yield path
    namespaces.remove(path)


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Path]:
    """Put the test into an empty network namespace."""
    path = tmp_path / "net"
    namespaces.create(path)
    with namespaces.inside(path):
        yield path
    namespaces.remove(path)


@pytest.fixture
def sh() -> Shell:
    """Run a command where the test is and return what it prints."""

    def run(command: str) -> str:
        argv = command.split()
        done = subprocess.run(argv, check=True, capture_output=True, text=True)
        return done.stdout

    return run


@pytest.fixture
def unprivileged() -> Shell:
    """Run Python where the test is, as nobody, with CAP_NET_ADMIN alone."""
    root = Path(__file__).parents[2]
    prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    prefix += ["--inh-caps=-all,+net_admin", "--ambient-caps=+net_admin"]

    def run(program: str) -> str:
        begin = f"import sys; sys.path.insert(0, {str(root)!r})\n"
        argv = [*prefix, "/usr/bin/python3", "-I", "-c", begin + program]
        done = subprocess.run(argv, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run

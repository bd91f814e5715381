# SPDX-License-Identifier: GPL-2.0-or-later
"""Network namespaces for tests of tunnels."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controller import namespaces

Ip = Callable[[str], str]


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Path]:
    """Put the test into an empty network namespace."""
    path = tmp_path / "net"
    namespaces.create(path)
    with namespaces.inside(path):
        yield path
    namespaces.remove(path)


@pytest.fixture
def ip() -> Ip:
    """Run ip(8) where the test is and return what it prints."""

    def run(command: str) -> str:
        argv = ["ip", *command.split()]
        done = subprocess.run(argv, check=True, capture_output=True, text=True)
        return done.stdout

    return run

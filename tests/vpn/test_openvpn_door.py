# SPDX-License-Identifier: GPL-2.0-or-later
"""Who comes to be managed is asked who it is, and does not keep the agent."""

import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from vpn.openvpn_door import Door

PATIENCE = 20.0  # seconds; only a failing test waits that long


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    made = Door(tmp_path / "management", os.getuid())
    yield made
    made.close()


def comer(door: Door) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.settimeout(PATIENCE)
    made.connect(str(door.path))
    return made


def test_one_is_let_in_and_the_next_is_sent_away(door: Door) -> None:
    with comer(door) as first, comer(door) as second:
        assert door.handle()
        assert not select.select([second], [], [], 0)[0]

        # Who comes without a pause is looked at one at a time.
        assert select.select([door], [], [], PATIENCE)[0]
        assert not door.handle()
        assert second.recv(1) == b""
        first.sendall(b"word")
        assert door.hear() == b"word"


def test_somebody_else_is_sent_away(tmp_path: Path) -> None:
    """The control is the test above."""
    strange = Door(tmp_path / "management", os.getuid() + 1)
    with comer(strange) as stranger:
        assert not strange.handle()
        assert not strange.open
        assert stranger.recv(1) == b""
    strange.close()

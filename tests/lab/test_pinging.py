# SPDX-License-Identifier: GPL-2.0-or-later
"""An answer that comes late is an answer, and none is none."""

import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller import namespaces
from tests.lab.pinging import answered

pytestmark = pytest.mark.kernel

HERE, THERE = "192.0.2.1", "192.0.2.2"
ARP = 0x0806
ASKED_BEFORE_ERROR = 3  # mcast_solicit of arp(7)
PATIENCE = 20.0  # seconds; only a failing test waits that long


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Path]:
    """Be at one end of a link; give the other's namespace, which has no address."""
    near, far = tmp_path / "near", tmp_path / "far"
    for net in (near, far):
        namespaces.create(net)
    with namespaces.inside(near):
        ip(f"link add eth0 type veth peer name far netns {far}")
        ip(f"address add {HERE}/24 dev eth0")
        ip("link set eth0 up")
        quick = Path("/proc/sys/net/ipv4/neigh/eth0/retrans_time_ms")
        quick.write_text("50")
        yield far
    for net in (near, far):
        namespaces.remove(net)


def ip(line: str) -> None:
    subprocess.run(["ip", *line.split()], check=True)


def test_an_error_on_the_way_is_not_the_last_word(far: Path) -> None:
    """A neighbour that answers after the kernel gave it up is reached."""
    found: list[bool] = []
    asking = threading.Thread(target=lambda: found.append(answered(THERE)))
    with namespaces.inside(far):
        ip("link set far up")
        heard = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ARP))
    with heard:
        heard.settimeout(PATIENCE)
        heard.bind(("far", ARP))
        asking.start()
        for _ in range(ASKED_BEFORE_ERROR + 1):
            heard.recv(64)
        with namespaces.inside(far):
            ip(f"address add {THERE}/24 dev far")
        asking.join()

    assert found == [True]


@pytest.mark.usefixtures("far")
def test_who_never_answers_is_not_reached() -> None:
    assert not answered(THERE, within=0)

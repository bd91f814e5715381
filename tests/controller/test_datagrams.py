# SPDX-License-Identifier: GPL-2.0-or-later
"""What an application sends as many datagrams in one arrives as many frames."""

import socket
import subprocess
from collections.abc import Iterator

import pytest

from controller.datagrams import send_alone
from tests.proof.namespaces_apart import apart

pytestmark = pytest.mark.kernel

UDP_SEGMENT = 103  # linux/udp.h
IPV4 = 0x0800
HEADERS = 14 + 20 + 8  # bytes of Ethernet, IPv4 and UDP
MANY, LAST = 64, b"the last"
CABLE = """
link add near type veth peer name far
link set far up
link set near up
address add 192.0.2.1/24 dev near
neighbour add 192.0.2.2 dev near lladdr 02:00:00:00:00:02
"""


@pytest.fixture(autouse=True)
def cable() -> Iterator[None]:
    with apart():
        subprocess.run(["ip", "-batch", "-"], input=CABLE, text=True, check=True)
        yield


def arriving() -> list[int]:
    """Send datagrams of a byte each as one; return the lengths of what comes of it."""
    found: list[int] = []
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as far,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near,
    ):
        far.bind(("far", IPV4))
        far.settimeout(20.0)  # seconds; only a failing test waits that long
        near.connect(("192.0.2.2", 9))
        near.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1)
        near.send(b"x" * MANY)
        near.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 0)
        near.send(LAST)
        while not (frame := far.recv(2048)).endswith(LAST):
            found.append(len(frame) - HEADERS)
    return found


def test_each_datagram_is_a_frame_of_its_own() -> None:
    """The control: without being told so, all of them are one."""
    assert arriving() == [MANY]

    send_alone(socket.if_nametoindex("near"))

    assert arriving() == [1] * MANY

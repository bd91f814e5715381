# SPDX-License-Identifier: GPL-2.0-or-later
"""A tun device is made by the agent and used by a daemon without capabilities."""

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from socket import if_nametoindex

import pytest

from tests.e2e.machine import until
from vpn import tun
from vpn.tun import Tun

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("net")]

NOBODY = 65534
Ip = Callable[[str], str]
OPEN_BY_NAME = """
import fcntl, struct
fcntl.ioctl(0, 0x400454CA, struct.pack("16sH22x", b"vpn0", 0x1001))
print("attached")
"""


@pytest.fixture
def made() -> Iterator[Tun]:
    device = tun.create("vpn0", NOBODY)
    yield device
    device.delete()


def as_user(uid: int) -> str:
    """Open the device by name, without any capability; return what it said."""
    argv = ["setpriv", f"--reuid={uid}", "--bounding-set=-all", "--inh-caps=-all"]
    argv += ["/usr/bin/python3", "-I", "-c", OPEN_BY_NAME]
    # Whose the file is depends on the machine; udev(7) lets everybody open it.
    with Path(tun.CLONE).open("r+b", buffering=0) as file:
        done = subprocess.run(
            argv, check=False, capture_output=True, text=True, stdin=file
        )
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def test_packets_to_the_device_come_out_of_the_file(made: Tun, ip: Ip) -> None:
    """Positive control of the next test: this is where clients' packets go."""
    ip("link set vpn0 addrgenmode none")
    ip("address add 10.64.0.2/32 dev vpn0")
    ip("link set vpn0 up")
    ip("route add default dev vpn0")

    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender:
        sender.sendto(b"marker", ("203.0.113.9", 9))

    assert b"marker" in os.read(made.file, 2048)


def test_without_a_daemon_the_device_stays_and_swallows(made: Tun, ip: Ip) -> None:
    """The routes of the clients stay too, so their packets go nowhere else."""
    ip("link set vpn0 addrgenmode none")
    ip("address add 10.64.0.2/32 dev vpn0")
    ip("link set vpn0 up")
    ip("route add default dev vpn0")

    made.release()

    assert made.there()
    assert "vpn0" in ip("route get 203.0.113.9")
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender:
        sender.sendto(b"marker", ("203.0.113.9", 9))
    # Before Linux 6.8 that is said up to a second later (linkwatch).
    until(lambda: "NO-CARRIER" in ip("link show dev vpn0"))


def test_the_owner_opens_it_by_name_without_a_capability(made: Tun) -> None:
    made.release()

    assert as_user(NOBODY) == "attached"


def test_another_user_does_not(made: Tun) -> None:
    made.release()

    assert "Operation not permitted" in as_user(NOBODY - 1)


def test_an_impostor_of_the_name_goes_and_the_new_device_is_another(ip: Ip) -> None:
    ip("link add vpn0 type veth peer name attacker")
    impostor = if_nametoindex("vpn0")

    device = tun.create("vpn0", NOBODY)

    assert device.index != impostor
    assert device.there()
    assert "attacker" not in ip("link show")
    device.delete()


def test_a_device_that_was_deleted_and_made_by_others_is_not_ours(
    made: Tun, ip: Ip
) -> None:
    ip("link delete vpn0")
    assert not made.there()

    ip("link add vpn0 type veth peer name attacker")

    assert not made.there()


def test_deleting_twice_is_no_error(ip: Ip) -> None:
    device = tun.create("vpn0", NOBODY)
    device.delete()

    device.delete()

    assert "vpn0" not in ip("link show")

# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel counts what the network says of those it cannot reach."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from controller import namespaces
from vpn.unreachable import told

pytestmark = pytest.mark.kernel


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Path]:
    made = tmp_path / "net"
    namespaces.create(made)
    with namespaces.inside(made):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield made
    namespaces.remove(made)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.usefixtures("net")
def test_a_closed_port_is_told_of_once(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    before = told()
    with socket.socket(family, socket.SOCK_DGRAM) as made:
        made.connect((host, 9))
        made.send(b"x")
        with suppress(ConnectionRefusedError):
            made.recv(1)

    assert told() == before + 1


def test_a_kernel_that_does_not_tell_has_said_nothing(tmp_path: Path) -> None:
    assert told(tmp_path) == 0
    (tmp_path / "snmp").write_text("Icmp: InMsgs\nIcmp: 3\n")
    (tmp_path / "snmp6").write_text("Ip6InReceives 4\n")

    assert told(tmp_path) == 0

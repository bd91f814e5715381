# SPDX-License-Identifier: GPL-2.0-or-later
"""The service manager hears how we are; without one nothing is sent."""

import math
import socket
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent import systemd
from agent.systemd import Notifier


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.settimeout(0)
        made.bind(str(tmp_path / "user@1000.notify"))
        yield made


@pytest.fixture
def notified(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.getsockname())
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    return manager


def test_it_says_when_the_rules_are_enforced(notified: socket.socket) -> None:
    Notifier().ready("open, 3 clients")

    assert notified.recv(1000) == b"READY=1\nSTATUS=open, 3 clients"


def test_a_reload_carries_the_time_it_began(notified: socket.socket) -> None:
    before = time.monotonic_ns() // 1000
    Notifier().reloading()
    after = time.monotonic_ns() // 1000

    word, _, moment = notified.recv(1000).partition(b"\nMONOTONIC_USEC=")
    assert word == b"RELOADING=1"
    assert before <= int(moment) <= after


def test_an_abstract_address_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(0)
        manager.bind("")  # the kernel chooses
        name = manager.getsockname()[1:].decode()
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        Notifier().ready("open")

        assert manager.recv(1000).startswith(b"READY=1")


def test_without_a_manager_nothing_is_sent(
    notified: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET")
    notifier = Notifier()
    notifier.ready("open")
    notifier.reloading()

    with pytest.raises(BlockingIOError):
        notified.recv(1000)


@pytest.mark.parametrize(
    "address", ["/nowhere/notify", "x" * 500, "@nobody"], ids=["none", "long", "gone"]
)
def test_a_manager_that_is_gone_is_no_reason_to_stop(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)

    Notifier().ready("open")


def test_a_manager_that_does_not_read_is_no_reason_to_stop(
    notified: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systemd, "PATIENCE", 0)
    notifier = Notifier()
    for number in range(2000):
        notifier.ready(str(number))

    assert notified.recv(1000) == b"READY=1\nSTATUS=0"


def test_without_a_watchdog_no_sign_of_life_is_due(notified: socket.socket) -> None:
    notifier = Notifier()
    notifier.alive()

    assert notifier.due == math.inf
    with pytest.raises(BlockingIOError):
        notified.recv(1000)


def test_signs_of_life_come_twice_as_often_as_they_are_asked_for(
    notified: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "10000000")
    ticks = count(100)
    now = [100.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], monotonic_ns=lambda: next(ticks))
    monkeypatch.setattr(systemd, "time", clock)
    notifier = Notifier()
    heard = []
    for second in range(100, 117):
        now[0] = float(second)
        notifier.alive()
        try:
            heard.append((second, notified.recv(1000)))
        except BlockingIOError:
            continue

    assert heard == [(s, b"WATCHDOG=1") for s in (105, 110, 115)]
    assert notifier.due == 120.0

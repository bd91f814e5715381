# SPDX-License-Identifier: GPL-2.0-or-later
"""A route of this machine that comes or goes is noticed, and a failure survived."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from selectors import DefaultSelector

import pytest

from controller import namespaces
from controller.platforms.host_changes import HostChanges

pytestmark = pytest.mark.kernel

PATIENCE = 20.0


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Path]:
    net = tmp_path / "machine"
    namespaces.create(net)
    yield net
    namespaces.remove(net)


def route(net: Path, *words: str) -> None:
    with namespaces.inside(net):
        subprocess.run(["ip", *words], check=True)


def heard(selector: DefaultSelector) -> None:
    ready = selector.select(PATIENCE)
    assert ready
    for key, mask in ready:
        key.data(mask)


def test_a_route_that_comes_and_goes_is_followed(machine: Path) -> None:
    calls: list[str] = []
    with namespaces.inside(machine), DefaultSelector() as selector:
        changes = HostChanges(selector, lambda: calls.append("followed"))
        assert selector.select(0) == []

        route(machine, "route", "add", "unreachable", "192.0.2.0/24")
        heard(selector)
        assert calls == ["followed"]

        route(machine, "-6", "route", "add", "unreachable", "2001:db8::/32")
        heard(selector)
        assert calls == ["followed"] * 2
        changes.close()


def test_a_failure_to_follow_waits_for_the_next_change(machine: Path) -> None:
    calls: list[str] = []

    def fail() -> None:
        calls.append("tried")
        raise OSError("no such device")

    with namespaces.inside(machine), DefaultSelector() as selector:
        changes = HostChanges(selector, fail)
        for network in ("192.0.2.0/24", "198.51.100.0/24"):
            route(machine, "route", "add", "unreachable", network)
            heard(selector)
        changes.close()
    assert calls == ["tried"] * 2

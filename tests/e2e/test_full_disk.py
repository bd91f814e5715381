# SPDX-License-Identifier: GPL-2.0-or-later
"""On a full disk the policy stays in force, and the command says what is full."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from controller.syscalls import mount, unmount
from tests.e2e.machine import (
    HTTP,
    HTTPS,
    RUNTIME,
    WEB4,
    Machine,
    becomes,
    machine,
    until,
)

pytestmark = pytest.mark.kernel

POLICY = """
[domains.sys-net]
personality = "netvm"
uplink = "lab"
[domains.sys-firewall]
personality = "firewall"
netvm = "sys-net"
[domains.work]
netvm = "sys-firewall"
firewall = ["accept proto=tcp dstports=7", "accept proto=tcp dstports=80"]
"""
FULL = "No space left on device"


@pytest.fixture
def small() -> Iterator[Machine]:
    """A machine with small disks: for what runs, and for the policy file."""
    with machine(POLICY) as made:
        for directory in (RUNTIME, made.policy.parent / "policy"):
            directory.mkdir()
            mount("small", str(directory), "tmpfs", 0, "size=4m")
        made.policy = made.policy.parent / "policy" / "policy.toml"
        made.policy.write_text(POLICY)
        made.up()
        yield made
        made.does("down")
        unmount(str(made.policy.parent))


@contextmanager
def full(directory: Path) -> Iterator[None]:
    """Leave no byte free there for a while."""
    filler = directory / "filler"
    # Others write there too, and may take the last block first.
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while os.fstatvfs(file.fileno()).f_bfree:
            file.write(bytes(4096))
    assert os.statvfs(directory).f_bfree == 0
    yield
    filler.unlink()


def reached(machine: Machine) -> dict[int, bool]:
    return {port: machine.reaches("work", WEB4, port) for port in (HTTP, HTTPS)}


def test_where_no_policy_file_fits_nothing_changes(small: Machine) -> None:
    stream = small.stream("work")
    with full(small.policy.parent):
        done = small.ravelin(
            "firewall", "work", "add", "accept", "proto=tcp", "dstports=443"
        )

        assert (done.status, FULL in done.err) == (3, True)
        assert small.policy.read_text() == POLICY
        assert reached(small) == {HTTP: True, HTTPS: False}
        assert stream.lives()

    small.does("firewall", "work", "add", "accept", "proto=tcp", "dstports=443")
    assert reached(small) == {HTTP: True, HTTPS: True}
    assert stream.lives()


def test_a_change_on_trial_is_rolled_back_where_no_file_fits(small: Machine) -> None:
    """And what is not in force any more cannot be confirmed."""
    stream = small.stream("work")
    text = small.policy.read_text()
    small.policy.write_text(text.replace("dstports=80", "dstports=443"))
    small.does("apply", "--confirm", "10")
    with full(RUNTIME):
        becomes(lambda: reached(small), {HTTP: True, HTTPS: False})
        until(lambda: any(x in small.does("log") for x in (FULL, "rolled back")))
        done = small.ravelin("confirm")
        assert (done.status, "nothing awaits" in done.err) == (1, True)
    assert stream.lives()
    small.does("down")
    assert small.policy.read_text() == text
    small.up()


def test_where_nothing_that_runs_can_write_rules_change_and_agents_come_back(
    small: Machine,
) -> None:
    """A new domain, whose number has to be kept, is refused and stops nothing."""
    stream = small.stream("work")
    with full(RUNTIME):
        small.does("firewall", "work", "add", "accept", "proto=tcp", "dstports=443")
        assert reached(small) == {HTTP: True, HTTPS: True}
        small.does("firewall", "work", "del", "accept", "proto=tcp", "dstports=443")
        assert reached(small) == {HTTP: True, HTTPS: False}

        before = small.agent("sys-firewall")
        os.kill(before, signal.SIGKILL)
        assert until(lambda: small.agent("sys-firewall") != before)
        becomes(lambda: small.status()["sys-firewall"]["problem"], None)
        assert reached(small) == {HTTP: True, HTTPS: False}

        text = small.policy.read_text()
        small.policy.write_text(f"{text}\n[domains.more]\n")
        done = small.ravelin("apply")
        assert (done.status, FULL in done.err) == (3, True)
        assert stream.lives()
    small.does("apply")
    assert "more" in small.status()
    assert stream.lives()

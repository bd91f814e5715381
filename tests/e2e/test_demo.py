# SPDX-License-Identifier: GPL-2.0-or-later
"""``make demo`` shows what the policy says, and leaves nothing however it ends."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.lab.addresses import WEB
from tests.e2e.machine import ROOT, Machine, until

pytestmark = pytest.mark.kernel

PATIENCE = 300.0  # seconds; only a failing test waits that long
COMMAND = ("/usr/bin/python3", "-I", str(ROOT), "controller", "demo")


@pytest.fixture
def demo(fresh: Machine) -> Iterator[subprocess.Popen[str]]:
    """The demo of the examples, which has begun."""
    name, _, value = fresh.mark.partition("=")
    with subprocess.Popen(
        [*COMMAND, str(fresh.policy)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {name: value},
    ) as process:
        yield process
        process.kill()


def runtimes() -> list[Path]:
    return list(Path("/run").glob("ravelin-demo-*"))


def test_the_demo_finds_what_the_policy_says_and_leaves_nothing(
    fresh: Machine, demo: subprocess.Popen[str]
) -> None:
    before = fresh.host()

    out, err = demo.communicate(timeout=PATIENCE)

    assert demo.returncode == 0, err
    assert "nothing differs from the policy" in err
    tried = [line.split() for line in out.splitlines()]
    for address in WEB:
        (https,) = [
            x for x in tried if x[:4] == ["work", "www,", "HTTPS", str(address)]
        ]
        assert https[4:] == ["reached", "reached"]
        (http,) = [x for x in tried if x[:4] == ["work", "www,", "HTTP", str(address)]]
        assert http[4:] == ["refused", "refused"]
    assert {"personal", "untrusted", "vault"} <= {x[0] for x in tried if x}
    assert "DIFFERS" not in out
    assert until(lambda: not fresh.left())
    assert (fresh.host(), runtimes()) == (before, [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_demo_that_is_interrupted_leaves_nothing(
    fresh: Machine, demo: subprocess.Popen[str], number: int
) -> None:
    before = fresh.host()
    until(lambda: [net for x in runtimes() for net in (x / "ns").glob("work")])

    demo.send_signal(number)
    _, err = demo.communicate(timeout=PATIENCE)

    assert demo.returncode == 128 + number
    assert "Traceback" not in err
    assert until(lambda: not fresh.left())
    assert (fresh.host(), runtimes()) == (before, [])

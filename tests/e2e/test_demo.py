# SPDX-License-Identifier: GPL-2.0-or-later
"""A demo shows what its policy says, and leaves nothing however it ends."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller.lab.addresses import WEB
from tests.e2e.machine import HOME, ROOT, Machine, becomes, machine, until

pytestmark = pytest.mark.kernel

PATIENCE = 300.0  # seconds; only a failing test waits that long
TOR_AND_VPN = (ROOT / "examples/tor-and-vpn.toml").read_text()
COMMAND = ("/usr/bin/python3", "-I", str(ROOT), "controller", "demo")


@pytest.fixture
def demo(fresh: Machine) -> Iterator[subprocess.Popen[str]]:
    """``make demo``, which has begun."""
    with begun(fresh) as process:
        yield process


@contextmanager
def begun(fresh: Machine) -> Iterator[subprocess.Popen[str]]:
    """Begin the demo of the machine's policy."""
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
    becomes(fresh.left, [])
    assert (fresh.host(), runtimes()) == (before, [])


def test_the_demo_of_tor_and_a_vpn_shows_whom_sites_see_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    """``make demo-tor``; who comes out of a tunnel is seen as its far end."""
    # Not on a machine of its own: the provider has one, and must see what it unmounts.
    made = Machine(tmp_path, TOR_AND_VPN)
    with begun(made) as demo:
        out, err = demo.communicate(timeout=PATIENCE)

    assert demo.returncode == 0, err
    assert "nothing differs from the policy" in err
    seen = [line.split() for line in out.splitlines() if "sys-" in line]
    tunnels = {("anon", "sys-tor"), ("work", "sys-vpn"), ("personal", "sys-vpn")}
    assert {tuple(words[:2]) for words in seen} == tunnels
    assert all(words[-1].startswith("203.0.113.") for words in seen)
    assert "everything is gone again" in err
    becomes(made.left, [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_demo_that_is_interrupted_leaves_nothing(
    fresh: Machine, demo: subprocess.Popen[str], number: int
) -> None:
    before = fresh.host()
    work = "ns/work"
    until(lambda: [net for x in runtimes() for net in x.glob(work)], PATIENCE)

    demo.send_signal(number)
    _, err = demo.communicate(timeout=PATIENCE)

    assert demo.returncode == 128 + number
    assert "Traceback" not in err
    becomes(fresh.left, [])
    assert (fresh.host(), runtimes()) == (before, [])


def remains() -> list[Path]:
    """Return the namespaces that demos hold, and all of their internets."""
    return [net for x in runtimes() for net in (*x.glob("ns/*"), *x.glob("lab/*"))]


BEHIND_TOR = """
[domains.sys-net]
personality = "netvm"
uplink = "lab"
[domains.sys-tor]
personality = "tor"
netvm = "sys-net"
network = "tor-network"
[domains.work]
netvm = "sys-tor"
"""


@pytest.mark.parametrize(
    ("policy", "begins"),
    [(HOME, "ns/work"), (BEHIND_TOR, "lab/remote/*")],
    ids=["while a domain is there", "while the Tor network is started"],
)
def test_a_demo_that_is_killed_leaves_nothing_that_runs(
    policy: str, begins: str
) -> None:
    """Its daemon ends with it, and takes down all that either has started."""
    with machine(policy) as made, begun(made) as demo:
        before = made.host()
        until(lambda: [net for x in runtimes() for net in x.glob(begins)], PATIENCE)
        assert made.left()

        demo.kill()
        demo.wait(PATIENCE)

        becomes(made.left, [], PATIENCE)
        assert (remains(), made.host()) == ([], before)

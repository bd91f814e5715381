# SPDX-License-Identifier: GPL-2.0-or-later
"""Names are resolved by a real server: records, aliases, long answers, absence."""

import select
import subprocess
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from agent.names import DNS_PORT, Names

Shell = Callable[[str], str]

pytestmark = pytest.mark.kernel

LOOPBACK = IPv4Address("127.0.0.1")
DEADLINE = 20.0  # seconds; only a failing test waits that long
MANY = [f"198.51.100.{number}" for number in range(1, 101)]

RECORDS = [
    "--local=/test/",
    "--host-record=dual.test,192.0.2.1,2001:db8::1",
    "--host-record=old.test,192.0.2.4",
    "--host-record=new.test,2001:db8::6",
    "--cname=alias.test,step.test",
    "--cname=step.test,dual.test",
    *(f"--host-record=many.test,{address}" for address in MANY),
]


@pytest.fixture
def _server(net: Path, sh: Shell) -> Iterator[None]:
    """Have the server in a network of its own, where no port is somebody else's."""
    assert net.exists()
    sh("ip link set lo up")
    quiet = ["--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"]
    here = [f"--port={DNS_PORT}", f"--listen-address={LOOPBACK}", "--bind-interfaces"]
    process = subprocess.Popen(
        ["dnsmasq", *quiet, *here, "--pid-file", "--user=root", *RECORDS],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    with process.stderr:
        assert any("started" in line for line in process.stderr)
        yield
        process.kill()
        process.wait()


@pytest.mark.usefixtures("_server")
def test_every_kind_of_answer_is_understood() -> None:
    names = Names((LOOPBACK,))
    expected = {
        "dual.test": {"192.0.2.1", "2001:db8::1"},
        "old.test": {"192.0.2.4"},
        "new.test": {"2001:db8::6"},
        "alias.test": {"192.0.2.1", "2001:db8::1"},
        "many.test": set(MANY),
        "missing.test": set(),
        "refused.elsewhere": set(),
    }
    names.want(frozenset(expected))
    end = time.monotonic() + DEADLINE

    def known() -> dict[str, set[str]]:
        return {name: set(map(str, at)) for name, at in names.answers().items()}

    names.handle()
    while known() != expected or not names.problems():
        now = time.monotonic()
        assert now < end, known()
        wait = max(min(names.next_deadline(), end) - now, 0)
        select.select([names], [], [], wait)
        names.handle()

    assert names.problems() == {"refused.elsewhere": "REFUSED"}
    names.close()

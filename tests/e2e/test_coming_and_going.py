# SPDX-License-Identifier: GPL-2.0-or-later
"""Up and down, also after a crash: all that is ours goes, and only that."""

import os
import resource
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from controller import namespaces
from tests.e2e.machine import (
    HOME,
    HTTPS,
    RUNTIME,
    WEB4,
    Machine,
    becomes,
    shown,
    until,
)

pytestmark = pytest.mark.kernel

FOREIGN = """table inet foreign {
	chain input {
		type filter hook input priority filter; policy accept;
		counter accept
	}
}
"""


def files(machine: Machine) -> list[Path]:
    """Everything in the runtime directory, but empty directories and logs."""
    found = (path for path in machine.runtime.rglob("*") if not path.is_dir())
    kept = {"daemon.log", "lock", "log", "state"}
    return [p for p in found if p.relative_to(machine.runtime).parts[0] not in kept]


def test_down_leaves_nothing(fresh: Machine) -> None:
    before = fresh.host()
    fresh.up()
    assert fresh.left()
    assert fresh.host() != before  # the mounts of the namespaces, at least
    fresh.does("down")
    becomes(fresh.left, [])
    assert fresh.host() == before
    assert files(fresh) == []
    assert fresh.ravelin("status").status == 3


def test_there_may_be_more_domains_than_files_at_first(fresh: Machine) -> None:
    """Each takes several of the daemon, which asks for as many as it needs."""
    more = (f"[domains.more{number}]\n" for number in range(60))
    fresh.policy.write_text("\n".join((HOME, *more)))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        fresh.up()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    before = fresh.agent("sys-firewall")
    os.kill(before, signal.SIGKILL)
    until(lambda: fresh.agent("sys-firewall") != before)
    becomes(lambda: fresh.status()["sys-firewall"]["problem"], None)
    assert fresh.reaches("work", WEB4, HTTPS)
    fresh.does("down")
    becomes(fresh.left, [])


def test_down_after_a_crash_removes_what_is_ours_and_only_that(
    fresh: Machine,
) -> None:
    subprocess.run(["nft", "-f", "-"], input=FOREIGN, text=True, check=True)
    Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
    for words in (
        "link add foreign type veth peer name vif1.0",
        "link set vif1.0 up",
        "link set foreign up",
        "addr add 10.137.0.1/32 dev foreign",
        "route add 10.137.0.0/16 dev foreign",
    ):
        subprocess.run(["ip", *words.split()], check=True)
    until(lambda: "state UP" in shown("ip link show foreign"))
    theirs = Path("/run/netns/theirs")
    theirs.parent.mkdir()
    namespaces.create(theirs)
    other = namespaces.spawn(["/usr/bin/sleep", "1000"], net=theirs)
    try:
        before = fresh.host()
        fresh.up()
        fresh.crash()
        fresh.does("down")
        becomes(fresh.left, [])
        assert fresh.host() == before
        assert files(fresh) == []
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
        namespaces.remove(theirs)


def test_agents_end_with_a_daemon_that_crashed_and_nothing_opens(
    fresh: Machine,
) -> None:
    fresh.up()
    assert fresh.reaches("work", WEB4, HTTPS)
    agents = fresh.crash()
    assert until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in agents))
    assert not fresh.reaches("work", WEB4)
    assert fresh.reaches("work", WEB4, HTTPS)  # what was allowed goes on


def test_up_after_a_crash_works(fresh: Machine) -> None:
    fresh.up()
    fresh.crash()
    assert fresh.ravelin("status").status == 3
    fresh.up()
    assert fresh.reaches("work", WEB4, HTTPS)
    assert not fresh.reaches("work", WEB4)
    assert not any(row["problem"] for row in fresh.status().values())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_daemon_that_is_told_to_end_takes_everything_down(
    fresh: Machine, number: signal.Signals
) -> None:
    before = fresh.host()
    fresh.up()
    os.kill(fresh.daemon(), number)
    becomes(fresh.left, [])
    assert (fresh.host(), files(fresh)) == (before, [])


def test_down_twice_says_that_nothing_is_up(fresh: Machine) -> None:
    fresh.up()
    fresh.does("down")
    done = fresh.ravelin("down")
    assert done.status == 3
    assert "nothing is up" in done.err


def test_down_while_up_is_still_busy_ends_it(fresh: Machine) -> None:
    before = fresh.host()
    going_up = fresh.start("up", str(fresh.policy))
    until((RUNTIME / "ns" / "sys-net").exists)
    assert fresh.ravelin("down").status == 0
    going_up.communicate()
    becomes(fresh.left, [])
    assert fresh.host() == before


def test_two_at_once_both_succeed(fresh: Machine) -> None:
    twice = [fresh.start("up", str(fresh.policy)) for _ in range(2)]
    ends = [process.communicate() for process in twice]
    assert [process.returncode for process in twice] == [0, 0], ends
    assert fresh.reaches("work", WEB4, HTTPS)


def test_addresses_are_the_same_after_down_and_up(fresh: Machine) -> None:
    fresh.up()
    before = {name: row["ip"] for name, row in fresh.status().items()}
    fresh.does("down")
    kept = HOME.replace("[domains.personal]", "[domains.aaa]")
    fresh.policy.write_text(kept)
    fresh.up()
    after = {name: row["ip"] for name, row in fresh.status().items()}
    assert {n: ip for n, ip in after.items() if n in before} == {
        n: ip for n, ip in before.items() if n in after
    }
    assert after["aaa"] not in before.values()


def test_a_user_who_is_not_root_is_told_so(fresh: Machine) -> None:
    fresh.up()
    setpriv = [shutil.which("setpriv") or "", "--reuid=65534", "--clear-groups"]
    RUNTIME.chmod(0o755)
    words = [
        "/bin/sh",
        "bin/ravelin",
        "--socket",
        str(RUNTIME / "admin.sock"),
        "status",
    ]
    done = subprocess.run(
        [*setpriv, *words], check=False, capture_output=True, text=True
    )
    assert done.returncode == 3
    assert "need root" in done.stderr


def test_down_ends_a_disposable_that_runs(fresh: Machine) -> None:
    before = fresh.host()
    fresh.up()
    process = fresh.start("run", "--disposable", "work", "--", "sleep", "1000")
    until(lambda: b"sleep 1000" in [words for _, words in fresh.left()])
    fresh.does("down")
    process.communicate()
    becomes(fresh.left, [])
    assert fresh.host() == before

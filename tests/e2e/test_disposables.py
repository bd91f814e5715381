# SPDX-License-Identifier: GPL-2.0-or-later
"""``run --disposable``: a copy of a domain that leaves nothing behind."""

import signal
import subprocess
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.e2e.machine import (
    HTTPS,
    RUNTIME,
    WEB4,
    Machine,
    becomes,
    command_line,
    end,
    mounts,
    until,
)

pytestmark = pytest.mark.kernel

AGENTS = ("sys-net", "sys-firewall", "sys-firewall2")
PROBE = (
    "import socket as s\n"
    "def try_(port):\n"
    "    try: s.create_connection(('198.51.100.80', port), 3); return 'reached'\n"
    "    except OSError: return 'refused'\n"
    "print(try_(443), try_(80))"
)


def traces(machine: Machine) -> dict[str, object]:
    """All that a disposable could leave in an agent, in the host, in files.

    What is counted of a vif is forgotten by itself (`rules.pace`).
    """
    rules = {
        name: [
            line
            for line in machine.tool(name, "nft", "list", "ruleset").splitlines()
            if "counter packets" not in line and " expires " not in line
        ]
        for name in AGENTS
    }
    links = {name: machine.tool(name, "ip", "-br", "link") for name in AGENTS}
    flows = machine.tool("sys-firewall", "conntrack", "-L")
    return {
        "rules": rules,
        "links": links,
        "routes": {name: routes(machine, name) for name in AGENTS},
        "flows of disposables": "10.138." in flows,
        "namespaces": sorted(path.name for path in (RUNTIME / "ns").iterdir()),
        "domains": sorted(machine.status()),
        "mounts": mounts(),
        "policy": machine.policy.read_text(),
    }


def processes(machine: Machine) -> Counter[bytes]:
    """Return the words of each process, but for those that begin by themselves."""
    at_will = (b"serve", b"dnsmasq", b" prove ")
    return Counter(
        words
        for _, words in machine.left()
        if not any(word in words for word in at_will)
    )


def routes(machine: Machine, name: str) -> list[str]:
    shown = [
        machine.tool(name, "ip", *version, "route", "show", "table", "all")
        for version in ((), ("-6",))
    ]
    return sorted(line for line in "".join(shown).splitlines() if " vif" in line)


@pytest.fixture
def spotless(home: Machine) -> Iterator[Machine]:
    """A machine on which, at the end of a test, everything is as it was."""
    before, running = traces(home), processes(home)
    yield home
    until(lambda: sorted(home.status()) == before["domains"])
    # One that was there before may have been about to end: a prover that has just
    # begun starts uname(1), by a library.
    becomes(lambda: processes(home) - running, Counter())
    # The domain is gone before its netvm has taken its rules away.
    becomes(lambda: traces(home), before)


def disposables(machine: Machine) -> list[str]:
    return [name for name, row in machine.status().items() if row["disposable"]]


def sleeping(machine: Machine) -> subprocess.Popen[str]:
    """Start a disposable that sleeps; return when it does."""
    command = ("run", "--disposable", "work", "--", "sleep", "1000")
    process = machine.start(*command)
    until(lambda: sleepers(machine))
    return process


def sleepers(machine: Machine) -> list[int]:
    return [pid for pid, words in machine.left() if words == b"sleep 1000"]


def test_it_has_the_netvm_and_the_rules_of_its_domain(spotless: Machine) -> None:
    done = spotless.ravelin("run", "--disposable", "work", "--", "python3", "-c", PROBE)
    assert done.out.split() == ["reached", "refused"]


def test_it_resolves_names(spotless: Machine) -> None:
    done = spotless.ravelin(
        *("run", "--disposable", "work", "--", "getent", "ahostsv4"),
        "www.example.com",
    )
    assert WEB4 in done.out


def test_it_exits_as_its_command_does(spotless: Machine) -> None:
    for command, status in (("exit 7", 7), ("kill -9 $$", 128 + 9)):
        words = ("run", "--disposable", "work", "--", "sh", "-c", command)
        assert spotless.ravelin(*words).status == status


def test_it_ends_with_its_command_and_what_that_started(spotless: Machine) -> None:
    words = ("run", "--disposable", "work", "--", "sh", "-c", "sleep 1000 & exit 0")
    assert spotless.ravelin(*words).status == 0


def test_two_have_addresses_of_their_own(spotless: Machine) -> None:
    first = sleeping(spotless)
    second = spotless.start("run", "--disposable", "work", "--", "sleep", "1000")
    until(lambda: len(sleepers(spotless)) == 2)
    rows = spotless.status()
    names = disposables(spotless)
    assert len({str(rows[name]["ip"]) for name in names}) == 2
    assert all(str(rows[name]["ip"]).startswith("10.138.") for name in names)
    for process in (first, second):
        process.terminate()
        process.communicate()


def test_a_rule_change_of_its_domain_leaves_it_as_it_was_made(home: Machine) -> None:
    process = sleeping(home)
    (name,) = disposables(home)
    home.does("firewall", "work", "reset")
    assert home.reaches("work", WEB4)
    assert home.reaches(name, WEB4, HTTPS)
    assert not home.reaches(name, WEB4)
    process.terminate()
    process.communicate()
    until(lambda: not disposables(home))


KILLS = {
    "the command": ("sleep",),
    "the command line": ("cli",),
    "both": ("cli", "sleep"),
    "all of it": ("cli", "enter", "sleep"),
    "what enters it": ("enter",),
}


@pytest.mark.parametrize("killed", KILLS.values(), ids=KILLS)
def test_it_leaves_nothing_when_killed(
    spotless: Machine, killed: tuple[str, ...]
) -> None:
    process = sleeping(spotless)
    entering = [pid for pid, words in spotless.left() if b" enter --runtime" in words]
    assert len(entering) >= 1
    found = {
        "sleep": sleepers(spotless),
        "cli": [process.pid],
        "enter": entering,
    }
    for name in killed:
        for pid in found[name]:
            end_if_ours(pid)
    process.communicate()


def end_if_ours(pid: int) -> None:
    if command_line(pid):
        end(pid)


def test_a_signal_reaches_the_command(spotless: Machine) -> None:
    process = sleeping(spotless)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode != 0

# SPDX-License-Identifier: GPL-2.0-or-later
"""An agent and its daemon meet by the users and places that the package makes.

No systemd runs units here (one does in `tests.guest`): what they say of users is
said by setpriv(1), on a machine of the test's own.
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.controller.own_machine import own_machine

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0  # seconds; only a failing test waits that long
AGENT = f"""
import select, sys
sys.path.insert(0, {str(ROOT)!r})
from agent.berth import DAEMONS, Berth
berth = Berth("tor")
print("open", flush=True)
while not berth.waiting:
    assert select.select([berth], [], [], {PATIENCE})[0]
    berth.handle()
berth.start(["/bin/sh", "-c", "id -un; echo word > /run/ravelin/daemon/tor/made"])
while berth.running:
    assert select.select([berth], [], [], {PATIENCE})[0]
    berth.handle()
made = DAEMONS / "tor/made"
print(made.read_text().strip(), made.owner(), made.group(), oct(made.stat().st_mode))
"""


@pytest.fixture
def machine() -> Iterator[None]:
    """A machine with the users and directories of the package, if it can be."""
    with own_machine():
        for tool, kind, words in (
            ("systemd-sysusers", "sysusers.d", ()),
            ("systemd-tmpfiles", "tmpfiles.d", ("--create",)),
        ):
            file = ROOT / "packaging" / kind / "ravelin.conf"
            subprocess.run([str(shutil.which(tool)), *words, file], check=True)
        yield


def as_user(name: str, *groups: str) -> list[str]:
    every = ["--clear-groups"] if not groups else [f"--groups={','.join(groups)}"]
    who = [f"--reuid={name}", f"--regid={name}", *every]
    return ["setpriv", *who, "--bounding-set=-all", "--no-new-privs", "--"]


@pytest.mark.usefixtures("machine")
def test_a_daemon_becomes_what_its_agent_says_and_hands_a_file_over() -> None:
    python = ["/usr/bin/python3", "-I"]
    launcher = [*as_user("ravelin-tor", "ravelin-agent"), *python, str(ROOT)]
    with ExitStack() as ends:
        agent = subprocess.Popen(
            [*as_user("ravelin-agent"), *python, "-c", AGENT],
            stdout=subprocess.PIPE,
            text=True,
        )
        ends.callback(agent.kill)
        assert agent.stdout is not None
        assert agent.stdout.readline() == "open\n"
        daemon = subprocess.run(
            [*launcher, "launcher", "tor"],
            check=True,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        said, _ = agent.communicate(timeout=PATIENCE)

    assert daemon.stdout == "ravelin-tor\n"
    assert said == "word ravelin-tor ravelin-agent 0o100660\n"


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("who", "may"),
    [("ravelin-agent", True), ("ravelin-tor", True), ("ravelin-openvpn", False)],
)
def test_nobody_else_comes_to_their_place(who: str, *, may: bool) -> None:
    words = [*as_user(who), "ls", "/run/ravelin/daemon/tor"]
    done = subprocess.run(words, check=False, capture_output=True)

    assert (done.returncode == 0) is may

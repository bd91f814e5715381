# SPDX-License-Identifier: GPL-2.0-or-later
"""An agent and its daemon meet; each has its own user, view and rights."""

import os
import selectors
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.platforms import daemons, netns
from controller.platforms.daemons import Daemons
from controller.platforms.netns import Netns
from controller.platforms.processes import Agent
from controller.ports import AgentStart, DaemonStart

pytestmark = pytest.mark.kernel

AGENT, DAEMON = 62007, 62008
PATIENCE = 20.0  # seconds; only a failing test waits that long
PROGRAM = r"""
import fcntl, os, socket, struct, sys
from pathlib import Path
status = dict(x.split(":", 1) for x in open("/proc/self/status").read().splitlines())
rights = status["CapEff"].strip()
if sys.argv[1] == "launcher":
    state = Path(os.environ["STATE_DIRECTORY"])
    count = len(list(state.iterdir()))
    (state / str(count)).touch()
    os.umask(0o007)
    with socket.socket(socket.AF_UNIX) as mine:
        mine.bind("/run/ravelin/daemon/tor/control")
        mine.listen()
        secrets = Path("/run/ravelin/secrets").exists()
        berth = socket.socket(socket.AF_UNIX)
        berth.connect("/run/ravelin/berth/tor")
        names = Path("/etc/hosts").read_text() + Path("/etc/resolv.conf").read_text()
        said = f"{os.getuid()} {int(rights, 16)} {count} {secrets} {names}"
        berth.send(said.encode())
        mine.accept()
else:
    hosts = Path("/run/ravelin/berth/tor.hosts")
    hosts.touch(0o644)
    hosts.write_text("192.0.2.7 front.example")
    berth = socket.socket(socket.AF_UNIX)
    berth.bind("/run/ravelin/berth/tor")
    berth.listen()
    os.chmod("/run/ravelin/berth/tor", 0o666)  # last: the test waits for it
    said = berth.accept()[0].recv(99).decode()
    with socket.socket(socket.AF_UNIX) as control:
        control.connect("/run/ravelin/daemon/tor/control")
    secret = Path(os.environ["CREDENTIALS_DIRECTORY"], "bridges")
    mode = oct(secret.stat().st_mode & 0o777)
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", b"tun9", 0x1001))
    print(said, "|", secret.read_text(), mode, os.environ["RAVELIN_CARRIERS"])
"""


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Netns]:
    tmp_path.chmod(0o700)  # as a home, which nobody else may enter
    root = tmp_path / "program"
    root.mkdir()
    (root / "__main__.py").write_text(PROGRAM)
    for each in (netns, daemons):
        monkeypatch.setattr(each, "ROOT", root)
    (tmp_path / "run").mkdir(mode=0o700)
    made = Netns(tmp_path / "run", tmp_path / "state")
    made.start("sys-tor")
    yield made
    made.sweep()


def end_of(*processes: Agent) -> list[str]:
    """Wait for processes and return why each ended."""
    with selectors.DefaultSelector() as selector:
        for process in processes:
            selector.register(process.pidfd, selectors.EVENT_READ)
        deadline = time.monotonic() + PATIENCE
        while len(selector.get_map()):
            left = deadline - time.monotonic()
            assert left > 0, [x.log.read_text() for x in processes]
            for key, _ in selector.select(left):
                selector.unregister(key.fileobj)
    return [process.finish() for process in processes]


def start(
    platform: Netns, tmp_path: Path, *, keeps: bool = True
) -> tuple[Agent, Agent]:
    secret = tmp_path / "bridges.txt"
    secret.write_text("Bridge 192.0.2.9:443")
    secret.chmod(0o600)
    qubesdb = tmp_path / "run" / "qubesdb"
    qubesdb.touch()
    daemons, secrets = {"tor": DAEMON}, {"bridges": secret}
    wanted = AgentStart("sys-tor", "torvm", AGENT, qubesdb, (), "tor", daemons, secrets)
    agent = platform.spawn_agent(wanted)
    bound = tmp_path / "run" / "berth" / "sys-tor" / "tor"
    deadline = time.monotonic() + PATIENCE
    while not accepts(bound):
        assert time.monotonic() < deadline, agent.log.read_text()
    return agent, platform.spawn_daemon(
        DaemonStart("sys-tor", "tor", DAEMON, AGENT, keeps)
    )


def accepts(path: Path) -> bool:
    """Whether somebody listens; the agent of this test takes one more."""
    return path.exists() and path.stat().st_mode & 0o777 == 0o666


def test_they_meet_as_different_users_without_rights(
    platform: Netns, tmp_path: Path
) -> None:
    agent, daemon = start(platform, tmp_path)

    (ended, _) = end_of(agent, daemon)

    assert ended.startswith("exit code 0")
    (line,) = agent.log.read_text().splitlines()
    said, heard = line.split(" | ")
    # It has no resolver, and the names that its agent writes down.
    assert said == f"{DAEMON} 0 0 False 192.0.2.7 front.example"
    assert heard == f"Bridge 192.0.2.9:443 0o400 tor={DAEMON}"


@pytest.mark.parametrize("keeps", [True, False])
def test_state_is_kept_unless_it_is_to_be_forgotten(
    platform: Netns, tmp_path: Path, *, keeps: bool
) -> None:
    counts = []
    for _ in range(2):
        agent, daemon = start(platform, tmp_path, keeps=keeps)
        end_of(agent, daemon)
        counts.append(int(agent.log.read_text().split()[2]))
        platform.stop("sys-tor")
        platform.start("sys-tor")
    assert counts == [0, 1 if keeps else 0]


def test_nothing_of_it_is_left_but_what_is_kept(
    platform: Netns, tmp_path: Path
) -> None:
    agent, daemon = start(platform, tmp_path)
    end_of(agent, daemon)

    platform.stop("sys-tor")

    left = [x for x in (tmp_path / "run").rglob("*") if "sys-tor" in x.parts]
    assert left == []
    assert (tmp_path / "state" / "domains" / "sys-tor" / "tor" / "0").exists()


def test_a_daemon_cannot_have_a_file_outside_by_a_link(tmp_path: Path) -> None:
    """What it left running exchanges a directory for a link while it starts again."""
    daemons = Daemons(tmp_path / "run", tmp_path / "state")
    start = DaemonStart("sys-tor", "tor", DAEMON, AGENT, keeps=True)
    place = daemons._state(start)
    outside = tmp_path / "outside"
    outside.mkdir()
    for directory in (outside, place / "a", place / "a" / "b"):
        directory.mkdir(exist_ok=True)
    names = [str(number) for number in range(200)]
    for name in names:
        (outside / name).touch()
        (place / "a" / "b" / name).touch()
    (place / "link").symlink_to(outside)
    over = threading.Event()

    def exchange() -> None:
        a, b, link, spare = (place / x for x in ("a", "a/b", "link", "spare"))
        while not over.is_set():
            b.rename(spare)
            link.rename(b)
            b.rename(link)
            spare.rename(b)
        assert a.exists()

    running = threading.Thread(target=exchange)
    running.start()
    try:
        for _ in range(100):
            daemons._state(start)
    finally:
        over.set()
        running.join()

    assert {(outside / name).stat().st_uid for name in names} == {os.getuid()}
    daemons._state(start)
    assert {(place / "a" / "b" / n).stat().st_uid for n in names} == {DAEMON}

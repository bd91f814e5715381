# SPDX-License-Identifier: GPL-2.0-or-later
"""A real agent whose QubesDB ends and is started again, as a daemon of its own does.

Elsewhere here the server is the controller, with which its agents end.  The
directory of the socket is let into the agent's view, so a new socket is found.
"""

import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from selectors import DefaultSelector

import pytest

from agent.qubesdb import SOCKET
from controller import namespaces
from controller.confine import Confinement, launch, rights_of_an_agent
from controller.platforms.daemons import CODE, ROOT
from controller.platforms.netns import ENVIRONMENT, PYTHON
from controller.qubesdb_server import QubesDbServer
from controller.qubesdb_store import Store
from controller.view import View
from tests.bench.scene import Scene, address, contents, keys_of_list, lay, scene
from tests.bench.traffic import SINK, behind, client
from tests.lab.enterable import enterable

pytestmark = pytest.mark.kernel

PATIENCE = 30.0  # seconds; only a failing test waits that long
UID = 61184 + 3
HANDLED = f"/qubes-firewall-handled/{address(1)}"  # the last that an agent writes
WEB, OTHER = 443, 80


def only(port: int) -> dict[str, str]:
    """Return a list that lets TCP to one port pass."""
    return {"0000": f"action=accept proto=tcp dstports={port}-{port}"}


@dataclass
class Gateway:
    """A FirewallVM, its QubesDB in this process, a client and a server behind it."""

    place: Scene
    directory: Path
    fw: Path = field(init=False)
    far: Path = field(init=False)
    up: Path = field(init=False)
    pid: int = 0
    said: dict[str, bytes] = field(default_factory=dict)
    keys: dict[str, bytes] = field(default_factory=dict)
    _selector: DefaultSelector = field(default_factory=DefaultSelector)
    _server: QubesDbServer | None = None

    def __post_init__(self) -> None:
        self.fw, self.far = self.place.net("fw"), self.place.net("fw-far")
        lay(self.fw, self.far, [1])
        client(self.far, "c1")
        self.up = behind(self.place, self.fw, "up")
        self.keys = contents([1], lambda _: only(WEB))

    def start(self) -> None:
        """Start the agent; return when it has done what its QubesDB says."""
        let_in = {Path(SOCKET).resolve().parent: self.directory, CODE: ROOT}
        view = View("fw", let_in=let_in)
        confinement = Confinement(self.fw, view, rights_of_an_agent(UID))
        log = os.open(self.directory / "log", os.O_WRONLY | os.O_CREAT, 0o600)
        argv = (PYTHON, "-I", str(CODE), "firewallvm")
        env = {k: v for k, v in ENVIRONMENT.items() if "USEC" not in k}
        self.pid = launch(confinement, argv, env=env, output=log)
        os.close(log)
        self.until(lambda: HANDLED in self.said)

    def serve(self) -> None:
        """Be the QubesDB, with the keys that dom0 wants by now."""
        store = Store()
        for path, value in sorted(self.keys.items()):
            store.write(path, value)
        self.said.clear()
        self._server = QubesDbServer(
            self._selector,
            self.directory / Path(SOCKET).name,
            store,
            self._written,
            owner=(UID, UID),
        )

    def end(self) -> None:
        """End the QubesDB with all its connections."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def write(self, keys: dict[str, bytes]) -> None:
        """Let dom0 write; if nobody serves, it is there when somebody does."""
        self.keys |= keys
        if self._server is not None:
            self.said.clear()
            for path, value in keys.items():
                self._server.write(path, value)

    def until(self, so: Callable[[], bool]) -> None:
        """Serve until it is so."""
        deadline = time.monotonic() + PATIENCE
        while not so():
            assert time.monotonic() < deadline, f"it said {self.said}"
            for key, mask in self._selector.select(1.0):
                key.data(mask)

    def _written(self, path: str, untrusted_value: bytes | None) -> None:
        if untrusted_value is not None:
            self.said[path] = untrusted_value

    def lives(self) -> bool:
        """Whether it is still the agent that was started."""
        with os.fdopen(os.pidfd_open(self.pid)) as handle:
            return not select.select([handle], [], [], 0)[0]

    def connect(self, port: int) -> "Talk":
        """Open a connection from the client to the server."""
        with namespaces.inside(self.up):
            listener = socket.create_server((SINK, port))
        with listener, namespaces.inside(self.far):
            near = socket.create_connection((SINK, port), timeout=PATIENCE)
            return Talk(near, listener.accept()[0])

    def refuses(self, port: int) -> bool:
        """Whether a new connection is refused by the gateway."""
        with namespaces.inside(self.far):
            try:
                socket.create_connection((SINK, port), timeout=PATIENCE).close()
            except OSError as error:
                return not isinstance(error, (ConnectionRefusedError, TimeoutError))
        return False


@dataclass
class Talk:
    """Both ends of a connection."""

    near: socket.socket
    far: socket.socket

    def echoes(self, within: float = PATIENCE) -> bool:
        """Whether a byte comes there and back in time."""
        there, back = (self.near, self.far), (self.far, self.near)
        for sender, receiver in (there, back):
            receiver.settimeout(within)
            try:
                sender.send(b"x")
                if receiver.recv(1) != b"x":
                    return False
            except OSError:
                return False
        return True

    def close(self) -> None:
        self.near.close()
        self.far.close()


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    directory = tmp_path / "qubes"
    directory.mkdir(mode=0o755)
    enterable(directory)
    with ExitStack() as stack:
        made = Gateway(stack.enter_context(scene(tmp_path / "run")), directory)
        made.serve()
        stack.callback(made.end)
        made.start()
        stack.callback(os.waitpid, made.pid, 0)
        stack.callback(os.kill, made.pid, signal.SIGKILL)
        yield made


def test_while_it_is_gone_what_it_said_last_is_in_force(gateway: Gateway) -> None:
    talk = gateway.connect(WEB)
    assert talk.echoes()

    gateway.end()

    for _ in range(3):
        assert talk.echoes()
        assert gateway.refuses(OTHER)
        gateway.connect(WEB).close()
    assert gateway.lives()
    talk.close()


def test_what_changed_meanwhile_is_in_force_once_it_is_back(gateway: Gateway) -> None:
    """Flows that lost permission are cut, those that kept it lose nothing."""
    gateway.write(keys_of_list(address(1), {**only(WEB), "0001": only(8)["0000"]}))
    gateway.until(lambda: HANDLED in gateway.said)
    kept, lost = gateway.connect(WEB), gateway.connect(8)
    assert lost.echoes()
    for _ in range(3):
        gateway.end()
        assert kept.echoes()
        gateway.write(keys_of_list(address(1), {**only(WEB), "0001": only(9)["0000"]}))

        gateway.serve()
        gateway.until(lambda: HANDLED in gateway.said)

        assert kept.echoes()
        assert not lost.echoes(within=1.0)
        gateway.connect(9).close()
        assert gateway.refuses(8)
    assert gateway.lives()
    for talk in (kept, lost):
        talk.close()


def test_after_it_is_back_its_events_are_heard_again(gateway: Gateway) -> None:
    gateway.end()
    gateway.serve()
    gateway.until(lambda: HANDLED in gateway.said)
    assert gateway.refuses(OTHER)

    gateway.write(keys_of_list(address(1), only(OTHER)))
    gateway.until(lambda: HANDLED in gateway.said)

    gateway.connect(OTHER).close()
    assert gateway.refuses(WEB)
    assert gateway.lives()

# SPDX-License-Identifier: GPL-2.0-or-later
"""Without Qubes an agent finds the same QubesDB, and can write little of it.

The server runs in a thread here, the agent's own client talks to it.
"""

import selectors
import socket
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.qubesdb import Disconnected, QubesDb, RefusedError
from agent.qubesdb_wire import Decoder, Kind, Message, WireError, encode
from controller.qubesdb_server import DEFAULT_LIMITS, Limits, QubesDbServer
from controller.qubesdb_store import Store
from tests.controller.own_machine import no_more_files

DEADLINE = 20.0
RULE = b"action=accept dst4=192.0.2.0/24 proto=tcp dstports=443-443"


class Dom0:
    """A loop in a thread, and the one server in it."""

    def __init__(self, path: Path, store: Store, limits: Limits) -> None:
        self.path = path
        self.untrusted: list[tuple[str, bytes | None]] = []
        self._selector = selectors.DefaultSelector()
        self._waker, self._wake = socket.socketpair()
        self._jobs: list[Callable[[], object]] = []
        self._stopping = False
        self._selector.register(self._waker, selectors.EVENT_READ, self._work)
        self.server = QubesDbServer(
            self._selector, path, store, self._hear, limits=limits
        )
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def do(self, job: Callable[[], object]) -> None:
        """Run this in the loop and wait for its end."""
        future: Future[object] = Future()
        self._jobs.append(lambda: future.set_result(job()))
        self._wake.send(b"x")
        future.result(DEADLINE)

    def write(self, path: str, data: bytes = b"") -> None:
        self.do(lambda: self.server.write(path, data))

    def remove(self, path: str) -> None:
        self.do(lambda: self.server.remove(path))

    def close(self) -> None:
        """Stop, once."""
        if self._stopping:
            return
        self.do(self._stop)
        self._thread.join(DEADLINE)
        self._selector.close()
        self._waker.close()
        self._wake.close()

    def _hear(self, path: str, untrusted_value: bytes | None) -> None:
        self.untrusted.append((path, untrusted_value))

    def _stop(self) -> None:
        self.server.close()
        self._stopping = True

    def _work(self, _mask: int) -> None:
        self._waker.recv(100)
        while self._jobs:
            self._jobs.pop(0)()

    def _run(self) -> None:
        while not self._stopping:
            for key, mask in self._selector.select():
                key.data(mask)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def serve(tmp_path: Path, store: Store) -> Iterator[Callable[..., Dom0]]:
    """Start servers on the one path and stop those still running."""
    with ExitStack() as undo:

        def start(limits: Limits = DEFAULT_LIMITS) -> Dom0:
            return undo.enter_context(closing(Dom0(tmp_path / "db", store, limits)))

        yield start


@pytest.fixture
def dom0(serve: Callable[..., Dom0]) -> Dom0:
    return serve()


@contextmanager
def connected(dom0: Dom0, *watches: str) -> Iterator[QubesDb]:
    with closing(QubesDb(str(dom0.path), timeout=DEADLINE)) as db:
        for path in watches:
            db.watch(path)
        db.connect()
        yield db


def next_events(db: QubesDb) -> tuple[str, ...]:
    """Wait for events as an agent's loop does."""
    if events := db.take_events():
        return events
    with selectors.DefaultSelector() as selector:
        selector.register(db, selectors.EVENT_READ)
        assert selector.select(DEADLINE), "no event"
    return db.take_events()


def raw(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(DEADLINE)
    connection.connect(str(path))
    return connection


def wait_until_answered(connection: socket.socket) -> None:
    """Return when the beginning of an answer can be read."""
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        assert selector.select(DEADLINE)


def exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += connection.recv(size - len(data)) or pytest.fail("the end")
    return data


# The store.

PATHS = st.lists(st.sampled_from(["a", "b", "a.b", "a-", "Z"]), min_size=1, max_size=3)
KEYS = PATHS.map(lambda parts: "/" + "/".join(parts))
PREFIXES = KEYS | KEYS.map(lambda path: path + "/") | st.just("") | st.just("/")


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), PREFIXES)), PREFIXES)
def test_the_store_is_a_dictionary_with_prefixes(
    steps: list[tuple[bool, str]], prefix: str
) -> None:
    store, model = Store(), dict[str, bytes]()
    for write, path in steps:
        if write and path and not path.endswith("/"):
            store.write(path, path.encode())
            model[path] = path.encode()
        elif not write:
            below = path.endswith("/")
            gone = {k for k in model if k == path or (below and k.startswith(path))}
            assert store.remove(path) is bool(gone)
            model = {key: value for key, value in model.items() if key not in gone}
    assert store.keys(prefix) == sorted(key for key in model if key.startswith(prefix))
    assert store.count(prefix) == len(store.keys(prefix))
    assert store.read(prefix) == model.get(prefix)


@pytest.mark.parametrize(
    ("path", "data"),
    [("", b""), ("/", b""), ("x", b""), ("/x/", b""), ("/-x", b""), ("/x", b"\0")],
)
def test_dom0_cannot_write_what_qubes_would_not_hold(
    dom0: Dom0, store: Store, path: str, data: bytes
) -> None:
    with pytest.raises(WireError):
        dom0.server.write(path, data)
    assert store.keys("") == []


# What a domain sees.


def test_a_client_reads_what_dom0_wrote(dom0: Dom0) -> None:
    dom0.write("/qubes-firewall/10.137.0.5/0000", RULE)
    dom0.write("/qubes-firewall/10.137.0.5/policy", b"drop")
    dom0.write("/qubes-firewall/10.137.0.50/policy", b"accept")
    dom0.write("/qubes-firewall/10.137.0.5")
    with connected(dom0) as db:
        assert db.read("/qubes-firewall/10.137.0.5/policy") == b"drop"
        assert db.read("/qubes-firewall/10.137.0.5") == b""
        assert db.read("/qubes-firewall/10.137.0.6") is None
        assert db.multiread("/qubes-firewall/10.137.0.5/") == {
            "/qubes-firewall/10.137.0.5/0000": RULE,
            "/qubes-firewall/10.137.0.5/policy": b"drop",
        }
        # A prefix is characters, not directories, as in Qubes.
        assert db.list("/qubes-firewall/10.137.0.5") == (
            "/qubes-firewall/10.137.0.5",
            "/qubes-firewall/10.137.0.5/0000",
            "/qubes-firewall/10.137.0.5/policy",
            "/qubes-firewall/10.137.0.50/policy",
        )
        assert db.list("/nothing") == ()
        assert db.multiread("/nothing") == {}


def test_a_thousand_clients_with_ten_rules_are_one_answer(
    dom0: Dom0, store: Store
) -> None:
    for client in range(1000):
        for rule in range(11):
            store.write(f"/qubes-firewall/10.137.{client}/{rule:04}", RULE)
    with connected(dom0) as db:
        found = db.multiread("/qubes-firewall/")
    assert list(found) == store.keys("")
    assert set(found.values()) == {RULE}


@pytest.mark.parametrize(
    ("watch", "fires"),
    [
        pytest.param("/a", ("/a",), id="key"),
        pytest.param("/a/", ("/a/1", "/a/1/2", "/a/"), id="directory"),
        pytest.param("/a/1", ("/a/1",), id="key below"),
        pytest.param("/", ("/a", "/a/1", "/a/1/2", "/ab", "/a/"), id="all"),
    ],
)
def test_a_watch_fires_as_in_qubes(
    dom0: Dom0, watch: str, fires: tuple[str, ...]
) -> None:
    """Removing a directory is one event, of the directory."""
    with connected(dom0, watch, "/end") as db:
        for path in ("/a", "/a/1", "/a/1/2", "/ab"):
            dom0.write(path)
        dom0.remove("/a/")
        dom0.remove("/a/")
        dom0.write("/end")
        events: tuple[str, ...] = ()
        while "/end" not in events:
            events += next_events(db)
        assert tuple(event for event in events if event != "/end") == fires


def test_an_unwatched_path_is_silent(dom0: Dom0) -> None:
    with connected(dom0, "/a", "/b") as db:
        db.unwatch("/a")
        dom0.write("/a")
        dom0.write("/b")
        assert next_events(db) == ("/b",)


def test_two_clients_hear_each_other_and_themselves(dom0: Dom0) -> None:
    watched = "/ravelin/status"
    with connected(dom0, watched) as one, connected(dom0, watched) as two:
        one.write(watched, b"generation=1")
        assert next_events(one) == next_events(two) == (watched,)
        assert two.read(watched) == b"generation=1"
        two.remove(watched)
        assert next_events(one) == next_events(two) == (watched,)
        assert one.read(watched) is None


def test_a_write_is_answered_before_it_fires(dom0: Dom0) -> None:
    path = "/ravelin/status"
    said = [Message(Kind.WATCH, path), Message(Kind.WRITE, path)]
    heard = [Kind.RESP_OK, Kind.RESP_OK, Kind.RESP_WATCH]
    with closing(raw(dom0.path)) as connection:
        connection.sendall(b"".join(map(encode, said)))
        expected = b"".join(encode(Message(kind, path)) for kind in heard)
        assert exactly(connection, len(expected)) == expected


def test_events_and_a_long_answer_do_not_disturb_each_other(
    dom0: Dom0, store: Store
) -> None:
    """The answer is much longer than a socket holds, so events fall into it."""
    for number in range(3000):
        store.write(f"/a/{number:04}", b"v" * 1000)
    with closing(raw(dom0.path)) as connection:
        for kind, path in ((Kind.WATCH, "/b/"), (Kind.MULTIREAD, "/a/")):
            connection.sendall(encode(Message(kind, path)))
        wait_until_answered(connection)
        for number in range(100):
            dom0.write(f"/b/{number:02}")
        dom0.remove("/a/2999")
        decoder, found = Decoder(), list[Message]()
        while Message(Kind.RESP_MULTIREAD, "") not in found[-200:]:
            decoder.feed(connection.recv(65536))
            found += iter(decoder.next_message, None)
    keys = [m.path for m in found if m.kind is Kind.RESP_MULTIREAD]
    events = [m.path for m in found if m.kind is Kind.RESP_WATCH]
    assert keys == [f"/a/{number:04}" for number in range(2999)] + [""]
    assert events == [f"/b/{number:02}" for number in range(100)]
    assert found[-1].kind is Kind.RESP_MULTIREAD


# What a domain may do.


@pytest.mark.parametrize(
    "path",
    [
        "/ravelin/status",
        "/ravelin/trouble",
        "/ravelin/report/bootstrap",
        "/ravelin/error/10.137.0.5",
        "/qubes-firewall-handled/10.137.0.5",
        "/dns/10.137.0.5/example.com",
    ],
)
def test_a_domain_writes_and_removes_what_is_its_own(dom0: Dom0, path: str) -> None:
    with connected(dom0) as db:
        db.write(path, b"1")
        assert db.read(path) == b"1"
        db.remove(path)
        db.remove(path)
        assert db.read(path) is None
    assert dom0.untrusted == [(path, b"1"), (path, None)]


@pytest.mark.parametrize(
    "path",
    [
        "/ravelin/status/x",
        "/ravelin/personality/forget",
        "/ravelin/statusx",
        "/ravelin/error",
        "/ravelin/uplink",
        "/ravelin/vif/vif1.0",
        "/qubes-firewall/10.137.0.5/policy",
        "/qubes-ip",
        "/dns",
    ],
)
def test_a_domain_neither_writes_nor_removes_what_is_dom0s(
    dom0: Dom0, store: Store, path: str
) -> None:
    dom0.write(path, b"dom0")
    with connected(dom0) as db:
        with pytest.raises(RefusedError):
            db.write(path, b"domain")
        for removed in (path, "/ravelin/", "/qubes-firewall/"):
            with pytest.raises(RefusedError):
                db.remove(removed)
        assert db.read(path) == b"dom0"
    assert store.read(path) == b"dom0"
    assert dom0.untrusted == []


def test_a_domain_has_room_for_so_many_keys(serve: Callable[..., Dom0]) -> None:
    """And always for the word how it is."""
    dom0 = serve(Limits(keys=2))
    dom0.write("/qubes-ip", b"does not count")
    with connected(dom0) as db:
        for path in ("/dns/a", "/dns/b"):
            db.write(path, b"1")
        with pytest.raises(RefusedError):
            db.write("/dns/c", b"1")
        db.write("/ravelin/status", b"1")
        db.write("/dns/b", b"2")
        db.remove("/dns/a")
        db.write("/dns/c", b"1")


def test_a_domain_has_room_for_so_many_watches(serve: Callable[..., Dom0]) -> None:
    dom0 = serve(Limits(watches=1))
    with connected(dom0, "/a") as db:
        with pytest.raises(RefusedError):
            db.watch("/b")
        db.unwatch("/a")
        db.watch("/b")


def test_a_domain_has_room_for_so_many_clients(serve: Callable[..., Dom0]) -> None:
    dom0 = serve(Limits(clients=1))
    with connected(dom0) as one:
        assert one.read("/a") is None
        with pytest.raises(Disconnected), connected(dom0) as two:
            two.read("/a")
    # What the loop does for us it does after it has noticed that one is gone.
    dom0.do(lambda: None)
    with connected(dom0) as three:
        assert three.read("/a") is None


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(Message(Kind.WRITE, "/dns/a", b"a\0b"), id="NUL"),
        pytest.param(Message(Kind.WRITE, "/dns/"), id="directory"),
        pytest.param(Message(Kind.WRITE, "/dns/-a"), id="leading dash"),
        pytest.param(Message(Kind.RM, "/dns/a", b"x"), id="data where none belongs"),
        pytest.param(Message(Kind.RM, ""), id="remove nothing"),
        pytest.param(Message(Kind.RM, "/"), id="remove all"),
        *[
            pytest.param(Message(kind, "/dns/a"), id=kind.name)
            for kind in Kind
            if kind.name.startswith("RESP_")
        ],
    ],
)
def test_a_request_that_makes_no_sense_is_an_error_and_the_client_stays(
    dom0: Dom0, store: Store, request_: Message
) -> None:
    dom0.write("/dns/a", b"1")
    with closing(raw(dom0.path)) as connection:
        connection.sendall(encode(request_) + encode(Message(Kind.READ, "/dns/a")))
        error = encode(Message(Kind.RESP_ERROR, request_.path))
        answer = encode(Message(Kind.RESP_READ, "/dns/a", b"1"))
        assert exactly(connection, 145) == error + answer
    assert store.keys("") == ["/dns/a"]
    assert dom0.untrusted == []


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"\xff" * 72, id="type"),
        pytest.param(b"\x01" * 72, id="length"),
        pytest.param(b"GET / HTTP/1.1\r\n" * 9, id="another protocol"),
    ],
)
def test_a_client_that_speaks_something_else_is_disconnected(
    dom0: Dom0, garbage: bytes
) -> None:
    with closing(raw(dom0.path)) as connection, connected(dom0) as other:
        connection.sendall(garbage)
        assert connection.recv(1) == b""
        assert other.read("/a") is None


def test_a_client_that_reads_no_events_is_disconnected_and_the_other_is_not(
    serve: Callable[..., Dom0],
) -> None:
    dom0 = serve(Limits(output=100_000))
    with closing(raw(dom0.path)) as slow, connected(dom0, "/a") as other:
        slow.sendall(encode(Message(Kind.WATCH, "/a")))
        assert exactly(slow, 72)
        for _ in range(100):
            for _ in range(100):
                dom0.write("/a")
            assert set(next_events(other)) == {"/a"}
        # Much less than was written is left in the socket, then it ends.
        left = b"".join(iter(lambda: slow.recv(65536), b""))
        assert len(left) < 72 * 10_000
        assert other.read("/a") == b""


def test_a_client_that_reads_no_answer_is_asked_for_no_more_requests(
    dom0: Dom0, store: Store
) -> None:
    """So what it costs is bounded, whatever it asks for."""
    for number in range(100):
        store.write(f"/a/{number}", b"v" * 3000)
    with closing(raw(dom0.path)) as greedy, connected(dom0) as other:
        greedy.settimeout(0)
        request = encode(Message(Kind.MULTIREAD, "/a/"))
        with suppress(BlockingIOError):
            while greedy.send(request):
                assert other.read("/b") is None
        clients = dom0.server._clients.values()
        assert max(len(client.output) for client in clients) < 200_000


# A server that comes and goes.


def test_a_watch_survives_the_server_and_the_agent_reads_anew(
    serve: Callable[..., Dom0], store: Store
) -> None:
    first = serve()
    with connected(first, "/a/") as db:
        first.write("/a/1", b"old")
        assert next_events(db) == ("/a/1",)
        first.close()
        with pytest.raises(Disconnected):
            next_events(db)
        with pytest.raises(Disconnected):
            db.connect()
        # While nobody listens dom0 goes on: no event will tell.
        store.write("/a/1", b"new")
        second = serve()
        db.connect()
        assert db.take_events() == ()
        assert db.multiread("/a/") == {"/a/1": b"new"}
        second.write("/a/2", b"later")
        assert next_events(db) == ("/a/2",)
        second.close()


def test_what_changes_while_the_agent_reads_anew_fires(dom0: Dom0) -> None:
    """The watches are there before the first read, so nothing falls between."""
    with connected(dom0, "/a") as db:
        dom0.write("/a", b"1")
        assert db.read("/a") == b"1"
        assert next_events(db) == ("/a",)


def test_while_no_file_can_be_opened_who_connects_waits(
    tmp_path: Path, store: Store
) -> None:
    selector = selectors.DefaultSelector()

    def turn() -> None:
        for key, mask in selector.select(0):
            key.data(mask)

    server = QubesDbServer(selector, tmp_path / "db", store, lambda *_: None)
    with closing(selector), closing(server), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "db"))
        with no_more_files():
            turn()
        assert len(selector.get_map()) == 1
        turn()
        assert len(selector.get_map()) == 2


def test_a_socket_left_by_a_server_that_was_killed_is_replaced(
    tmp_path: Path, serve: Callable[..., Dom0]
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(tmp_path / "db"))
    assert (tmp_path / "db").is_socket()
    with connected(serve()) as db:
        assert db.read("/a") is None


def test_what_is_no_socket_is_not_replaced(tmp_path: Path, store: Store) -> None:
    (tmp_path / "db").write_text("precious")
    with (
        selectors.DefaultSelector() as selector,
        pytest.raises(OSError, match="in use"),
    ):
        QubesDbServer(selector, tmp_path / "db", store, lambda *_: None)
    assert (tmp_path / "db").read_text() == "precious"


def test_the_socket_is_gone_when_the_server_is(serve: Callable[..., Dom0]) -> None:
    dom0 = serve()
    assert stat.S_IMODE(dom0.path.stat().st_mode) == 0o600
    dom0.close()
    assert not dom0.path.exists()


@pytest.mark.kernel
def test_only_the_user_of_the_agent_can_connect(store: Store) -> None:
    """The control is the user that can; every user can reach the folder."""
    connect = "import socket,sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    with tempfile.TemporaryDirectory() as folder, selectors.DefaultSelector() as loop:
        Path(folder).chmod(0o755)
        path = Path(folder, "db")
        server = QubesDbServer(loop, path, store, lambda *_: None, owner=(1234, 1234))
        with closing(server):
            outcomes = {
                uid: subprocess.run(
                    ["/usr/bin/python3", "-I", "-c", connect, str(path)],
                    user=uid,
                    group=uid,
                    extra_groups=[],
                    capture_output=True,
                    check=False,
                )
                for uid in (1234, 1235)
            }
    assert outcomes[1234].returncode == 0
    assert b"PermissionError" in outcomes[1235].stderr

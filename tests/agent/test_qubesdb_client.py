# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's client believes no server more than the protocol allows.

The server of these tests is the other end of a socket: what it will answer is
written before the client asks.  tests/controller/test_qubesdb_server.py has the
client against our server.
"""

import selectors
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent import qubesdb
from agent.qubesdb import Disconnected, ProtocolError, QubesDb, RefusedError
from agent.qubesdb_wire import Kind, Message, WireError, encode

LISTED = (
    Message(Kind.RESP_LIST, "/a/1"),
    Message(Kind.RESP_LIST, "/a/2"),
    Message(Kind.RESP_LIST, ""),
)
Call = Callable[[QubesDb], object]


class Peer:
    """The server's end."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection

    def say(self, *messages: Message) -> None:
        self.socket.sendall(b"".join(map(encode, messages)))

    def heard(self) -> bytes:
        """Return what the client has sent so far."""
        try:
            return self.socket.recv(65536, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return b""


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        made.bind(str(tmp_path / "db"))
        made.listen()
        yield made


@pytest.fixture
def db(listener: socket.socket) -> Iterator[QubesDb]:
    with closing(QubesDb(listener.getsockname(), timeout=20)) as made:
        made.connect()
        yield made


@pytest.fixture
def peer(listener: socket.socket, db: QubesDb) -> Iterator[Peer]:  # noqa: ARG001
    connection, _ = listener.accept()
    with connection:
        yield Peer(connection)


def event(path: str) -> Message:
    return Message(Kind.RESP_WATCH, path)


@dataclass(frozen=True)
class Talk:
    """What is called, said, heard and returned."""

    call: Call
    request: Message
    answers: tuple[Message, ...]
    result: object = None


TALKS = {
    "read": Talk(
        lambda db: db.read("/a"),
        Message(Kind.READ, "/a"),
        (Message(Kind.RESP_READ, "/a", b"1"),),
        b"1",
    ),
    "read what is empty": Talk(
        lambda db: db.read("/a"),
        Message(Kind.READ, "/a"),
        (Message(Kind.RESP_READ, "/a", b""),),
        b"",
    ),
    "read what is not there": Talk(
        lambda db: db.read("/a"),
        Message(Kind.READ, "/a"),
        (Message(Kind.RESP_ERROR_NOENT, "/a"),),
    ),
    "multiread": Talk(
        lambda db: db.multiread("/a"),
        Message(Kind.MULTIREAD, "/a"),
        (
            Message(Kind.RESP_MULTIREAD, "/a", b""),
            Message(Kind.RESP_MULTIREAD, "/a/1", b"v"),
            Message(Kind.RESP_MULTIREAD, ""),
        ),
        {"/a": b"", "/a/1": b"v"},
    ),
    "list": Talk(
        lambda db: db.list("/a/"),
        Message(Kind.LIST, "/a/"),
        LISTED,
        ("/a/1", "/a/2"),
    ),
    "write": Talk(
        lambda db: db.write("/a", b"1"),
        Message(Kind.WRITE, "/a", b"1"),
        (Message(Kind.RESP_OK, "/a"),),
    ),
    "remove": Talk(
        lambda db: db.remove("/a/"),
        Message(Kind.RM, "/a/"),
        (Message(Kind.RESP_OK, "/a/"),),
    ),
    "remove what is not there": Talk(
        lambda db: db.remove("/a"),
        Message(Kind.RM, "/a"),
        (Message(Kind.RESP_ERROR_NOENT, "/a"),),
    ),
    "watch": Talk(
        lambda db: db.watch("/a/"),
        Message(Kind.WATCH, "/a/"),
        (Message(Kind.RESP_OK, "/a/"),),
    ),
}


@pytest.mark.parametrize("talk", TALKS.values(), ids=TALKS)
@pytest.mark.parametrize("events", [0, 2], ids=["quiet", "with events"])
def test_a_request_is_one_message_and_its_answer_is_found_among_events(
    db: QubesDb, peer: Peer, talk: Talk, events: int
) -> None:
    expected = []
    for number, answer in enumerate(talk.answers):
        paths = [f"/e/{number}/{i}" for i in range(events)]
        peer.say(*map(event, paths), answer)
        expected += paths
    peer.say(event("/last"))
    assert talk.call(db) == talk.result
    assert peer.heard() == encode(talk.request)
    assert db.take_events() == (*expected, "/last")
    assert db.take_events() == ()


def test_an_event_cut_in_two_is_taken_when_it_is_whole(db: QubesDb, peer: Peer) -> None:
    data = encode(event("/a"))
    peer.socket.sendall(data + data[:50])
    assert db.take_events() == ("/a",)
    peer.socket.sendall(data[50:])
    assert db.take_events() == ("/a",)


def test_nothing_to_take_does_not_wait(db: QubesDb, peer: Peer) -> None:
    assert peer.heard() == b""
    assert db.take_events() == ()


CALLS = {
    "read": lambda db: db.read("/a"),
    "multiread": lambda db: db.multiread("/a"),
    "list": lambda db: db.list("/a"),
    "write": lambda db: db.write("/a", b"1"),
    "remove": lambda db: db.remove("/a"),
    "watch": lambda db: db.watch("/a"),
    "take_events": lambda db: db.take_events(),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@every_call
def test_without_a_connection_nothing_is_answered(
    listener: socket.socket, call: Call
) -> None:
    """But a watch is remembered, see the tests of the server."""
    db = QubesDb(listener.getsockname())
    if call is CALLS["watch"]:
        call(db)
    else:
        with pytest.raises(Disconnected, match="not connected"):
            call(db)


@every_call
def test_a_server_that_goes_away_disconnects(
    db: QubesDb, peer: Peer, call: Call
) -> None:
    peer.socket.close()
    with pytest.raises(Disconnected):
        call(db)
    assert db.fileno() == -1


@pytest.mark.parametrize("cut", [1, 71, 72, 100, 3 * 72 - 1])
def test_a_server_killed_in_the_middle_of_an_answer_disconnects(
    db: QubesDb, peer: Peer, cut: int
) -> None:
    peer.socket.sendall(b"".join(map(encode, LISTED))[:cut])
    peer.socket.shutdown(socket.SHUT_WR)
    with pytest.raises(Disconnected, match="closed the connection"):
        db.list("/a/")
    assert db.fileno() == -1


def test_a_silent_server_disconnects(listener: socket.socket) -> None:
    """Its late answer must not answer the next request."""
    db = QubesDb(listener.getsockname(), timeout=0.05)
    db.connect()
    with pytest.raises(Disconnected, match=r"timed out|no answer"):
        db.read("/a")
    with pytest.raises(Disconnected, match="not connected"):
        db.read("/a")


def test_nobody_listening_disconnects_at_once(tmp_path: Path) -> None:
    with pytest.raises(Disconnected):
        QubesDb(str(tmp_path / "nothing")).connect()


def test_a_server_too_busy_to_accept_disconnects_at_once(tmp_path: Path) -> None:
    path = str(tmp_path / "db")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen(0)
        with closing(QubesDb(path)) as first, closing(QubesDb(path)) as second:
            first.connect()
            with pytest.raises(Disconnected):
                second.connect()


@pytest.mark.parametrize(
    ("call", "answer", "cause"),
    [
        pytest.param(
            CALLS["read"], encode(Message(Kind.RESP_OK, "/a")), "RESP_OK", id="kind"
        ),
        pytest.param(
            CALLS["read"], encode(Message(Kind.RESP_READ, "/b")), "'/b'", id="path"
        ),
        pytest.param(
            CALLS["read"], encode(Message(Kind.WRITE, "/a")), "WRITE", id="a request"
        ),
        pytest.param(
            CALLS["list"], encode(Message(Kind.RESP_LIST, "/b")), "'/b'", id="prefix"
        ),
        pytest.param(
            CALLS["list"],
            encode(Message(Kind.RESP_ERROR_NOENT, "/a")),
            "NOENT",
            id="no such list",
        ),
        pytest.param(CALLS["read"], b"HTTP/1.1 400" * 9, "72 is not", id="garbage"),
        pytest.param(
            CALLS["take_events"],
            encode(Message(Kind.RESP_OK, "/a")),
            "not asked for",
            id="an answer to nothing",
        ),
        pytest.param(CALLS["take_events"], b"\xff" * 72, "255 is not", id="no event"),
    ],
)
def test_a_server_that_does_not_speak_qubesdb_is_left(
    db: QubesDb, peer: Peer, call: Call, answer: bytes, cause: str
) -> None:
    peer.socket.sendall(answer)
    with pytest.raises(ProtocolError, match=cause):
        call(db)
    with pytest.raises(Disconnected, match="not connected"):
        call(db)


def test_a_second_answer_does_not_answer_the_next_request(
    db: QubesDb, peer: Peer
) -> None:
    peer.say(Message(Kind.RESP_READ, "/a", b"1"), Message(Kind.RESP_READ, "/a", b"2"))
    assert db.read("/a") == b"1"
    with pytest.raises(ProtocolError, match="not asked for"):
        db.read("/a")


@pytest.mark.parametrize("name", ["write", "remove", "watch", "list", "multiread"])
def test_a_refusal_is_told_and_the_connection_stays(
    db: QubesDb, peer: Peer, name: str
) -> None:
    peer.say(Message(Kind.RESP_ERROR, "/a"))
    with pytest.raises(RefusedError, match="/a"):
        CALLS[name](db)
    peer.say(Message(Kind.RESP_READ, "/a", b"1"))
    assert db.read("/a") == b"1"


def test_a_refused_watch_is_forgotten(db: QubesDb, peer: Peer) -> None:
    peer.say(Message(Kind.RESP_ERROR, "/a"))
    with pytest.raises(RefusedError):
        db.watch("/a")
    peer.heard()
    db.unwatch("/a")
    assert peer.heard() == b""


def test_a_path_is_watched_once_and_unwatched_once(db: QubesDb, peer: Peer) -> None:
    ok = Message(Kind.RESP_OK, "/a")
    peer.say(ok)
    db.watch("/a")
    db.watch("/a")
    peer.say(ok)
    db.unwatch("/a")
    db.unwatch("/a")
    asked = [Message(Kind.WATCH, "/a"), Message(Kind.UNWATCH, "/a")]
    assert peer.heard() == b"".join(map(encode, asked))


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda db: db.write("/a/", b""), id="write a directory"),
        pytest.param(lambda db: db.write("/a", b"\0"), id="write a NUL"),
        pytest.param(lambda db: db.write("/a", b"v" * 3072), id="write 3072 bytes"),
        pytest.param(lambda db: db.write("/" + "a" * 63, b""), id="write 64 letters"),
        pytest.param(lambda db: db.read("/a b"), id="read a space"),
        pytest.param(lambda db: db.watch("/é"), id="watch no ASCII"),
        pytest.param(lambda db: db.remove("/"), id="remove the root"),
        pytest.param(lambda db: db.remove(""), id="remove nothing"),
    ],
)
def test_what_no_qubesdb_understands_is_not_sent(
    db: QubesDb, peer: Peer, call: Call
) -> None:
    with pytest.raises(WireError):
        call(db)
    assert peer.heard() == b""


def test_a_flood_of_events_is_not_kept(
    db: QubesDb, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qubesdb, "_MAX_EVENTS", 100)
    peer.say(*[event("/a")] * 100)
    assert len(db.take_events()) == 100
    peer.say(*[event("/a")] * 101)
    with pytest.raises(ProtocolError, match="events"):
        db.take_events()


@pytest.mark.parametrize("name", ["list", "multiread"])
def test_an_answer_without_end_is_not_kept(
    db: QubesDb, peer: Peer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    kind = {"list": Kind.RESP_LIST, "multiread": Kind.RESP_MULTIREAD}[name]
    monkeypatch.setattr(qubesdb, "_MAX_ANSWER", 10 * 72)
    peer.say(*[Message(kind, "/a")] * 10, Message(kind, ""))
    assert len(CALLS[name](db)) > 0
    peer.say(*[Message(kind, "/a")] * 11, Message(kind, ""))
    with pytest.raises(ProtocolError):
        CALLS[name](db)


def test_a_selector_lets_go_of_a_client_that_was_disconnected(
    db: QubesDb, peer: Peer
) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(db, selectors.EVENT_READ)
        peer.say(event("/a"))
        assert [key.fileobj for key, _ in selector.select(5)] == [db]
        assert db.take_events() == ("/a",)
        peer.socket.close()
        assert [key.fileobj for key, _ in selector.select(5)] == [db]
        with pytest.raises(Disconnected):
            db.take_events()
        selector.unregister(db)
        assert not selector.get_map()

# SPDX-License-Identifier: GPL-2.0-or-later
"""Messages of tor are whole or not there, however the bytes come."""

import select
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torvm import connection
from torvm.connection import Connection, Messages

SAID = (
    b"250-version=0.4.9.11\r\n250 OK\r\n",
    b"650 STREAM 1 NEW 0 1.2.3.4:80\r\n",
    b"250+ns/all=\r\nr a\r\n250 no end\r\n650 nor this\r\n..dot\r\n.\r\n250 OK\r\n",
    b"552 Unrecognized key\r\n",
    b"650-CONF_CHANGED\r\n650-DNSPort=1\r\n650 OK\r\n",
)


@given(
    st.lists(st.sampled_from(SAID), max_size=8),
    st.lists(st.integers(1, 40), min_size=1, max_size=60),
)
def test_it_makes_no_difference_where_the_bytes_are_cut(
    said: list[bytes], cuts: list[int]
) -> None:
    messages, rest, found = Messages(), b"".join(said), []
    for cut in [*cuts, len(rest)]:
        found += messages.feed(rest[:cut])
        rest = rest[cut:]

    assert found == said


@given(st.binary(max_size=300))
def test_anything_at_all_is_cut_into_messages(data: bytes) -> None:
    assert data.startswith(b"".join(Messages().feed(data)))


def test_a_message_without_an_end_is_not_kept_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "LARGEST", 70)
    messages = Messages()
    assert list(messages.feed(b"250-x\r\n" * 10)) == []

    with pytest.raises(ConnectionError, match="without an end"):
        list(messages.feed(b"250-x\r\n"))


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[tuple[Connection, socket.socket]]:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "control"))
        listening.listen(1)
        ours = Connection(str(tmp_path / "control"))
        theirs, _ = listening.accept()
    yield ours, theirs
    ours.close()
    theirs.close()


def test_answers_go_to_those_who_asked_in_turn(
    ends: tuple[Connection, socket.socket],
) -> None:
    ours, theirs = ends
    heard: list[bytes] = []
    ours.ask("ONE", lambda reply: heard.append(b"one: " + reply))
    ours.ask("TWO", lambda reply: heard.append(b"two: " + reply))
    assert theirs.recv(99) == b"ONE\r\nTWO\r\n"
    theirs.sendall(b"250 A\r\n650 EVENT\r\n250 B\r\n")

    assert list(ours.events()) == [b"650 EVENT\r\n"]
    assert heard == [b"one: 250 A\r\n", b"two: 250 B\r\n"]


def test_nobody_who_does_not_listen_is_waited_for(
    ends: tuple[Connection, socket.socket],
) -> None:
    """More than the socket holds waits here, and is sent when there is room."""
    ours, theirs = ends
    long = "X" * (4 << 20)
    ours.ask(long, lambda _: None)
    assert ours.awaited() & select.EPOLLOUT
    received = b""
    theirs.settimeout(20)
    while not received.endswith(b"\r\n"):
        assert list(ours.events()) == []
        received += theirs.recv(1 << 20)

    assert len(received) == len(long) + 2
    assert not ours.awaited() & select.EPOLLOUT


def test_a_flood_of_events_leaves_time_for_other_work(
    ends: tuple[Connection, socket.socket],
) -> None:
    """A client has tor say as much as it likes, for as long as it likes."""
    ours, theirs = ends
    event, unsent = b"650 WARN x\r\n", b""
    theirs.setblocking(False)  # noqa: FBT003

    def more() -> None:
        nonlocal unsent
        with suppress(BlockingIOError):
            while True:
                unsent = unsent or event * 1000
                unsent = unsent[theirs.send(unsent) :]

    more()
    heard = 0
    for _ in ours.events():
        heard += 1
        if heard % 1000 == 0:
            more()
    assert 0 < heard <= connection.AT_ONCE * connection.CHUNK / len(event)
    assert next(ours.events()) == event


def test_the_end_is_an_error(ends: tuple[Connection, socket.socket]) -> None:
    ours, theirs = ends
    theirs.close()

    with pytest.raises(OSError, match="closed"):
        list(ours.events())


def test_an_answer_to_no_question_is_an_error(
    ends: tuple[Connection, socket.socket],
) -> None:
    ours, theirs = ends
    theirs.sendall(b"250 OK\r\n")

    with pytest.raises(OSError, match="no question"):
        list(ours.events())


def test_where_nobody_listens_there_is_no_connection(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        Connection(str(tmp_path / "nothing"))

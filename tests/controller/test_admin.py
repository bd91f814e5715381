# SPDX-License-Identifier: GPL-2.0-or-later
"""The messages between the command and the daemon, and the client that asks."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller import client
from controller.admin import (
    MAX_REQUEST,
    SHAPES,
    Answer,
    Exit,
    Failure,
    Lines,
    Progress,
    ProtocolError,
    Reply,
    Request,
    decode_reply,
    decode_request,
    encode,
)

DEADLINE = 20  # seconds

REQUESTS = [
    Request("up", {"policy": "/etc/ravelin/home.toml"}),
    Request("status"),
    Request("run", {"domain": "a", "command": ("sh", "-c", "x"), "disposable": True}),
    Request("prefs", {"domain": "a", "property": None, "value": None}),
    Request(
        "firewall",
        {
            "domain": "a",
            "action": "add",
            "rule": ("drop",),
            "number": 0,
        },
    ),
    *(
        Request(
            "explain", {"domain": "a", "proto": None, "destination": "b:80", "told": x}
        )
        for x in (None, (), ("192.0.2.7", "2001:db8::7"))
    ),
]
REPLIES: list[Reply] = [
    Progress("starting sys-net"),
    Answer({"changes": [{"sign": "+", "domain": "a", "text": "é"}]}),
    Answer(None),
    Failure(Exit.NOT_ENFORCED, "sys-net: no kernel"),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.verb)
def test_a_request_arrives_as_it_was_sent(request_: Request) -> None:
    assert decode_request(encode(request_).removesuffix(b"\n")) == request_


@pytest.mark.parametrize("reply", REPLIES, ids=str)
def test_a_reply_arrives_as_it_was_sent(reply: Reply) -> None:
    assert decode_reply(encode(reply).removesuffix(b"\n")) == reply


def test_arguments_are_read_by_their_type() -> None:
    run, firewall = REQUESTS[2], REQUESTS[4]

    assert run.text("domain") == "a"
    assert run.words("command") == ("sh", "-c", "x")
    assert run.flag("disposable") is True
    assert firewall.maybe_number("number") == 0
    assert REQUESTS[3].maybe_text("value") is None


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[" * 60000, "no JSON"),
        (b"[]", "no JSON object"),
        (b"{}", "expected a verb"),
        (b'{"verb":"statsu","arguments":{}}', "did you mean status"),
        (b'{"verb":[],"arguments":{}}', "expected a verb"),
        (b'{"verb":"down","arguments":{"force":true}}', "down: .* expected none"),
        (b'{"verb":"up","arguments":{"policy":3}}', "3: expected text"),
        (b'{"verb":"up","arguments":{"policy":null}}', "None: expected text"),
    ],
)
def test_what_is_no_request_is_refused(line: bytes, says: str) -> None:
    with pytest.raises(ProtocolError, match=says):
        decode_request(line)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rule", "drop"),
        ("rule", ["drop", 1]),
        ("number", True),
        ("number", -1),
        ("number", "1"),
        ("action", ["add"]),
    ],
)
def test_an_argument_of_another_type_is_refused(name: str, value: object) -> None:
    good = {**REQUESTS[4].arguments, name: value}

    with pytest.raises(ProtocolError, match="expected"):
        decode_request(encode(Request("firewall", good)))  # type: ignore[arg-type]


@pytest.mark.parametrize("line", [b"{}", b'{"failure":"","exit":9}', b'{"progress":1}'])
def test_what_is_no_reply_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError, match="no reply"):
        decode_reply(line)


@given(st.binary())
def test_no_bytes_from_outside_do_worse_than_being_refused(line: bytes) -> None:
    try:
        request = decode_request(line)
    except ProtocolError:
        return
    assert request.verb in SHAPES


@given(st.lists(st.binary(max_size=8).map(lambda b: b.replace(b"\n", b""))), st.data())
def test_lines_come_whole_however_they_are_cut(
    lines: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    cutter = Lines(8)

    ends = zip([0, *cuts], [*cuts, len(stream)], strict=True)
    found = [line for a, b in ends for line in cutter.feed(stream[a:b])]

    assert found == lines


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_line_beyond_the_limit_is_refused(end: bytes) -> None:
    with pytest.raises(ProtocolError, match="longer"):
        list(Lines(MAX_REQUEST).feed(b"x" * (MAX_REQUEST + 1) + end))


@contextmanager
def daemon(path: Path, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    """Serve one connection in a thread."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        listening.settimeout(DEADLINE)

        def one() -> None:
            connection, _ = listening.accept()
            with connection:
                serve(connection)

        thread = threading.Thread(target=one)
        thread.start()
        yield
        thread.join(DEADLINE)
        assert not thread.is_alive()


def answering(*replies: Reply) -> Callable[[socket.socket], None]:
    def serve(connection: socket.socket) -> None:
        connection.recv(MAX_REQUEST)
        for reply in replies:
            connection.sendall(encode(reply))

    return serve


@pytest.mark.parametrize("last", REPLIES[1:], ids=str)
def test_the_client_returns_what_comes_of_a_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: Answer | Failure
) -> None:
    monkeypatch.setattr(client, "PATIENCE", DEADLINE)
    path = tmp_path / "s"
    with daemon(path, answering(Progress("one"), last)):
        told: list[str] = []

        assert client.ask(path, Request("down"), told.append) == last
        assert told == []


@pytest.mark.parametrize("patience", [0.0, 0.2], ids=["at once", "later"])
def test_progress_is_told_to_those_who_have_to_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: float
) -> None:
    monkeypatch.setattr(client, "PATIENCE", patience)
    heard = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.recv(MAX_REQUEST)
        connection.sendall(encode(Progress("starting sys-net")))
        assert heard.wait(DEADLINE)
        connection.sendall(encode(Answer(None)))

    def tell(text: str) -> None:
        assert text == "starting sys-net"
        heard.set()

    with daemon(tmp_path / "s", serve):
        assert client.ask(tmp_path / "s", Request("down"), tell) == Answer(None)


def test_a_daemon_that_hangs_up_or_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with pytest.raises(client.NotRunningError):
        client.ask(path, Request("down"), print)
    with (
        daemon(path, answering(Progress("x"))),
        pytest.raises(ProtocolError, match="hung up"),
    ):
        client.ask(path, Request("down"), print)
    with pytest.raises(client.NotRunningError):
        client.ask(path, Request("down"), print)

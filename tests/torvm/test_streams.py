# SPDX-License-Identifier: GPL-2.0-or-later
"""What tor says of streams is believed as whole events, and what clients add is not.

`tests.torvm.test_control_and_tor` has tor itself say such things.
"""

import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.torvm import garbled
from torvm import streams
from torvm.said import Stream, StreamsLost
from torvm.streams import PAUSE, Streams

GREETED = b"250 OK\r\n250 OK\r\n"
FIELDS = b"SOCKS_USERNAME,SOCKS_PASSWORD,CLIENTADDR,SESSION_GROUP,NYM_EPOCH"
TAIL = b"NYM_EPOCH=0 SESSION_GROUP=-5 ISO_FIELDS=" + FIELDS + b"\r\n"
DNS, TRANS = b" CLIENT_PROTOCOL=DNS " + TAIL, b" CLIENT_PROTOCOL=TRANS " + TAIL
LOGIN = rb' SOCKS_USERNAME="a SOURCE_ADDR=10.137.0.9:1 \"b\r\n" SOCKS_PASSWORD="\\"'
WHOLE = {
    b"650 STREAM 5 NEWRESOLVE 0 www.example.com:0 SOURCE_ADDR=10.137.0.5:33430"
    b" PURPOSE=DNS_REQUEST" + DNS: Stream(
        "5", "NEWRESOLVE", "", ip_address("10.137.0.5")
    ),
    b"650 STREAM 6 NEW 0 [2001:db8::1]:80 SOURCE_ADDR=[fd09::5]:33430 PURPOSE=USER"
    + TRANS: Stream("6", "NEW", "", ip_address("fd09::5")),
    b"650 STREAM 6 SENTCONNECT 7 192.0.2.1:80" + TRANS: Stream("6", "SENTCONNECT", "7"),
    b"650 STREAM 8 NEW 0 a.onion:80 SOURCE_ADDR=10.137.0.5:1 PURPOSE=USER"
    + LOGIN
    + TRANS: Stream("8", "NEW", "", ip_address("10.137.0.5")),
    b"650 STREAM 6 CLOSED 7 a:80 REASON=END REMOTE_REASON=DONE" + TRANS: Stream(
        "6", "CLOSED", "7"
    ),
}
RELAY = b"192.0.2.7.$" + b"AB" * 20 + b".exit:5001"
OWN = b" CLIENT_PROTOCOL=UNKNOWN NYM_EPOCH=0 SESSION_GROUP=-2 ISO_FIELDS=SESSION_GROUP"
OF_ITSELF = (
    b"650 STREAM 3 NEW 0 " + RELAY + b" PURPOSE=DIR_FETCH" + OWN + b"\r\n",
    b"650 STREAM 3 CLOSED 2 " + RELAY + b" REASON=DONE" + OWN + b"\r\n",
)
STRANGE = (
    b"650 STREAM 3 NEW 0 192.0.2.7:5001" + OWN + b"\r\n",
    b"650 STREAM 9 NEWRESOLVE 0 x\r\n",
    b"650 STREAM 9 CLOSED 0 a b:0 REASON=DONE" + DNS,
    b"250 OK\r\n",
    b"650+x\r\n",
    b"650 STATUS_CLIENT NOTICE CIRCUIT_NOT_ESTABLISHED\r\n",
    b"650 STREAM 6 SENTCONNECT 7 192.0.2.1:80 SOURCE_ADDR=10.137.0.6:1\r\n",
)


@dataclass
class World:
    """A tor that listens, and a clock."""

    folder: Path
    now: float = 100.0

    def __post_init__(self) -> None:
        self.ready = select.epoll()
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(str(self.folder / "control"))
        self.listening.listen(1)
        path = str(self.folder / "control")
        self.streams = Streams(path, self.ready, lambda: self.now)

    def meets(self) -> socket.socket:
        """Let it in and greet it."""
        made, _ = self.listening.accept()
        assert made.recv(99) == b"AUTHENTICATE 00ff\r\nSETEVENTS STREAM\r\n"
        made.sendall(GREETED)
        return made

    def begins(self) -> socket.socket:
        self.streams.begin(b"\x00\xff")
        return self.meets()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.streams.close()
    made.ready.close()
    made.listening.close()


def test_an_event_is_a_stream(world: World) -> None:
    """Whose it is, is said before what a client writes."""
    with world.begins() as tor:
        tor.sendall(b"".join((*OF_ITSELF, *WHOLE)))
        assert world.ready.poll(0)

        assert world.streams.handle() == list(WHOLE.values())
        assert world.streams.handle() == []


@given(st.lists(st.integers(1, 300), min_size=1, max_size=20))
def test_it_makes_no_difference_where_the_bytes_are_cut(cuts: list[int]) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)  # noqa: FBT003
    heard = Streams("/nowhere", select.epoll())
    heard._socket, found, rest = ours, [], b"".join(WHOLE)
    heard._awaited = ()
    for cut in [*cuts, len(rest)]:
        theirs.sendall(rest[:cut])
        rest = rest[cut:]
        found += heard.handle()
    heard.close()
    theirs.close()

    assert found == list(WHOLE.values())


@pytest.mark.parametrize("strange", STRANGE)
def test_after_what_is_no_event_nothing_is_believed(
    world: World, strange: bytes
) -> None:
    """What follows may be a client's words too; it is heard anew after a while."""
    first, *_ = WHOLE
    with world.begins() as tor:
        tor.sendall(first + strange + first)
        assert world.streams.handle() == [WHOLE[first], StreamsLost()]
        assert tor.recv(9) == b""
    world.now += PAUSE / 2
    assert world.streams.handle() == []
    world.listening.setblocking(False)  # noqa: FBT003
    with pytest.raises(BlockingIOError):
        world.listening.accept()

    world.now += PAUSE
    assert world.streams.handle() == []
    with world.meets() as tor:
        tor.sendall(first)
        assert world.streams.handle() == [WHOLE[first]]


def test_a_name_is_too_short_for_an_event_that_another_one_hides() -> None:
    """So what a client makes up never looks like nothing but events.

    Its name ends the event it is in, has a whole one, and begins a last one.
    """
    head, tail = b"650 STREAM 1 A 1 ", b" NYM_EPOCH=0 SESSION_GROUP=0 ISO_FIELDS="
    event = head + b":1 CLIENT_PROTOCOL=A" + tail + b"A" * streams.FEWEST + b"\r"
    own = head + b".$" + b"A" * 40 + b".exit:1 CLIENT_PROTOCOL=UNKNOWN" + tail + b"\r"
    assert streams._EVENT.fullmatch(event)
    assert streams._OWN.fullmatch(own)
    for ended in (event, own):
        # The head of the first is tor's.
        forged = ended.removeprefix(head) + b"\n" + event + b"\n"
        assert len(forged) > streams.LONGEST_NAME
        # And by DNS there would be a point in what ends one.
        assert len(ended.rpartition(b".")[2][2:]) > streams.LONGEST_LABEL


@pytest.mark.parametrize("source", [b"", b" SOURCE_ADDR=10.137.0.6:1"])
def test_what_a_refused_name_begins_is_no_event(world: World, source: bytes) -> None:
    """SOCKS lets it be long enough; the rest of the event then says that it was."""
    name = garbled.FORGED + b":0" + source + b" A=b"
    with world.begins() as tor:
        tor.sendall(b"650 STREAM 9 CLOSED 0 " + name)
        tor.sendall(b":80 REASON=SOCKS_PROTOCOL CLIENT_PROTOCOL=SOCKS5 " + TAIL)

        assert world.streams.handle() == [Stream("9", "CLOSED", "")]


def test_a_line_without_an_end_is_not_kept_for_ever(world: World) -> None:
    with world.begins() as tor:
        tor.sendall(b"650 STREAM " + b"1" * (2 * streams.LONGEST))

        assert world.streams.handle() == [StreamsLost()]


@pytest.mark.parametrize("answer", [b"515 no\r\n", b"650 STREAM\r\n", b""])
def test_a_tor_that_does_not_know_us_is_left_and_met_again(
    world: World, answer: bytes
) -> None:
    world.streams.begin(b"\x00\xff")
    made, _ = world.listening.accept()
    with made:
        made.sendall(answer)
    assert world.streams.handle() == [StreamsLost()]
    world.now += PAUSE
    world.streams.handle()

    world.meets().close()


def test_where_nobody_listens_it_goes_on_to_look(tmp_path: Path) -> None:
    heard = Streams(str(tmp_path / "nothing"), select.epoll(), lambda: 0.0)
    heard.begin(b"")

    assert heard.handle() == []

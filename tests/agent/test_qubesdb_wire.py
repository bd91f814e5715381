# SPDX-License-Identifier: GPL-2.0-or-later
"""The codec speaks the struct of QubesDB, and fails only by name."""

import sys
from contextlib import suppress
from dataclasses import FrozenInstanceError
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.qubesdb_wire import Decoder, Kind, Message, WireError, check_entry, encode

PAD = b"\0\0\0"
NO_DATA = b"\0\0\0\0"


def size(number: int) -> bytes:
    """A uint32 as this machine has it."""
    return number.to_bytes(4, sys.byteorder)


def field(path: bytes) -> bytes:
    """A path in its 64 bytes."""
    return path + b"\0" * (64 - len(path))


# Laid out by hand: uint8 type, char path[64], 3 bytes of padding, uint32 length, data.
GOLDEN = {
    b"\x00" + field(b"/qubes-ip") + PAD + NO_DATA: Message(Kind.READ, "/qubes-ip"),
    b"\x01" + field(b"/ravelin/status") + PAD + size(2) + b"up": Message(
        Kind.WRITE, "/ravelin/status", b"up"
    ),
    b"\x02" + field(b"/qubes-firewall/") + PAD + NO_DATA: Message(
        Kind.MULTIREAD, "/qubes-firewall/"
    ),
    b"\x03" + field(b"/qubes") + PAD + NO_DATA: Message(Kind.LIST, "/qubes"),
    b"\x04" + field(b"/dns/") + PAD + NO_DATA: Message(Kind.RM, "/dns/"),
    b"\x05" + field(b"/connected-ips") + PAD + NO_DATA: Message(
        Kind.WATCH, "/connected-ips"
    ),
    b"\x06" + field(b"/connected-ips") + PAD + NO_DATA: Message(
        Kind.UNWATCH, "/connected-ips"
    ),
    b"\x07" + field(b"/x") + PAD + NO_DATA: Message(Kind.RESP_OK, "/x"),
    b"\x08" + field(b"/x") + PAD + NO_DATA: Message(Kind.RESP_ERROR_NOENT, "/x"),
    b"\x09" + field(b"/x") + PAD + NO_DATA: Message(Kind.RESP_ERROR, "/x"),
    b"\x0a" + field(b"/x") + PAD + size(3071) + b"v" * 3071: Message(
        Kind.RESP_READ, "/x", b"v" * 3071
    ),
    b"\x0b" + field(b"/" + b"p" * 62) + PAD + size(1) + b"v": Message(
        Kind.RESP_MULTIREAD, "/" + "p" * 62, b"v"
    ),
    b"\x0c" + field(b"") + PAD + NO_DATA: Message(Kind.RESP_LIST, ""),
    b"\x0d" + field(b"/A.z_0:1@-/") + PAD + NO_DATA: Message(
        Kind.RESP_WATCH, "/A.z_0:1@-/"
    ),
}
golden = pytest.mark.parametrize(
    ("data", "message"), GOLDEN.items(), ids=[m.kind.name for m in GOLDEN.values()]
)

MESSAGES = st.builds(
    Message,
    st.sampled_from(Kind),
    st.from_regex(r"[A-Za-z0-9_./:@-]{0,63}", fullmatch=True),
    st.binary(max_size=3071),
)


def decoded(*pieces: bytes) -> list[Message]:
    """Feed piece after piece, taking every message as soon as it is there."""
    decoder = Decoder()
    messages: list[Message] = []
    for piece in pieces:
        decoder.feed(piece)
        messages += iter(decoder.next_message, None)
        assert len(decoder._untrusted) < 72 + 3071
    return messages


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Split at these places, in whatever order they come."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def test_the_golden_table_has_every_kind() -> None:
    assert [message.kind for message in GOLDEN.values()] == list(Kind)


@golden
def test_a_message_has_the_bytes_of_the_struct(data: bytes, message: Message) -> None:
    assert encode(message) == data


@golden
def test_the_bytes_of_the_struct_are_the_message(data: bytes, message: Message) -> None:
    assert decoded(data) == [message]


def test_what_stands_behind_the_nul_and_in_the_padding_means_nothing() -> None:
    """Qubes' daemon ends a list by zeroing the first byte of the last path."""
    rest = b"\0qubes-firewall/10.137.0.5/0000".ljust(64, b"\xff")
    assert decoded(b"\x0b" + rest + b"\xff\xff\xff" + NO_DATA) == [
        Message(Kind.RESP_MULTIREAD, "")
    ]


@pytest.mark.parametrize(
    ("untrusted", "cause"),
    [
        pytest.param(
            b"\x0e" + field(b"/x") + PAD + NO_DATA, "14 is not a type", id="type"
        ),
        pytest.param(b"\x00" + b"/" * 64 + PAD + NO_DATA, "does not end", id="no NUL"),
        pytest.param(
            b"\x00" + field(b"/a b") + PAD + NO_DATA, "is not a path", id="space"
        ),
        pytest.param(
            b"\x00" + field(b"/\xc3\xa9") + PAD + NO_DATA, "is not a path", id="utf-8"
        ),
        pytest.param(
            b"\x00" + field(b"/a\n") + PAD + NO_DATA, "is not a path", id="newline"
        ),
        pytest.param(
            b"\x01" + field(b"/x") + PAD + size(3072), "3072 bytes", id="too long"
        ),
        pytest.param(
            b"\x01" + field(b"/x") + PAD + b"\xff" * 4, "4294967295 bytes", id="4 GiB"
        ),
    ],
)
def test_what_is_no_message_is_named_and_ends_the_stream(
    untrusted: bytes, cause: str
) -> None:
    good = encode(Message(Kind.RESP_WATCH, "/x"))
    decoder = Decoder()
    decoder.feed(good + untrusted + good)
    assert decoder.next_message() == Message(Kind.RESP_WATCH, "/x")
    for _ in range(2):
        with pytest.raises(WireError, match=cause):
            decoder.next_message()


@golden
def test_a_message_cut_anywhere_waits_for_its_end(
    data: bytes, message: Message
) -> None:
    for place in range(min(len(data), 80)):
        assert decoded(data[:place]) == []
        assert decoded(data[:place], data[place:]) == [message]


@settings(deadline=None)
@given(st.lists(MESSAGES, max_size=5), st.lists(st.integers(0), max_size=10))
def test_a_stream_says_the_same_however_it_is_cut(
    messages: list[Message], places: list[int]
) -> None:
    stream = b"".join(map(encode, messages))
    assert decoded(*cut(stream, places)) == messages


@settings(deadline=None)
@given(st.binary(max_size=4000), st.lists(st.integers(0), max_size=5))
def test_random_bytes_are_messages_or_a_wire_error(
    untrusted: bytes, places: list[int]
) -> None:
    with suppress(WireError):
        decoded(*cut(untrusted, places))


@settings(deadline=None)
@given(
    st.lists(MESSAGES, min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=4),
    st.integers(0, 100),
)
def test_a_damaged_stream_is_messages_or_a_wire_error(
    messages: list[Message], changes: list[tuple[int, int]], lost: int
) -> None:
    stream = bytearray(b"".join(map(encode, messages)))
    for place, value in changes:
        stream[place % len(stream)] = value
    with suppress(WireError):
        found = decoded(bytes(stream[: len(stream) - lost]))
        # No byte is read twice, whatever the lengths say.
        assert sum(len(encode(message)) for message in found) <= len(stream)


@pytest.mark.parametrize(
    ("path", "data"),
    [
        pytest.param("/" * 64, b"", id="64 characters"),
        pytest.param("/a b", b"", id="space"),
        pytest.param("/é", b"", id="not ASCII"),
        pytest.param("/a\0", b"", id="NUL"),
        pytest.param("/x", b"v" * 3072, id="3072 bytes"),
    ],
)
def test_a_message_that_cannot_be_sent_cannot_be_made(path: str, data: bytes) -> None:
    with pytest.raises(WireError):
        Message(Kind.WRITE, path, data)


def test_a_message_does_not_change() -> None:
    message = Message(Kind.READ, "/x")
    with pytest.raises(FrozenInstanceError):
        message.path = "/y"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("path", "data"),
    [
        pytest.param("", b"", id="empty"),
        pytest.param("x", b"", id="relative"),
        pytest.param("/x/", b"", id="directory"),
        pytest.param("/", b"", id="root"),
        pytest.param("/-x", b"", id="leading dash"),
        pytest.param("/x/-y/z", b"", id="leading dash of a part"),
        pytest.param("/x", b"a\0b", id="NUL in data"),
        pytest.param("/x", b"v" * 3072, id="3072 bytes"),
    ],
)
def test_what_qubes_does_not_store_is_refused(path: str, data: bytes) -> None:
    check_entry("/x-/y-", b"\xff" * 3071)
    with pytest.raises(WireError):
        check_entry(path, data)

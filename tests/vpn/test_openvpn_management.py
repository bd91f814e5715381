# SPDX-License-Identifier: GPL-2.0-or-later
"""The management interface of OpenVPN: text to events, and commands to text."""

from contextlib import suppress
from ipaddress import ip_address
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpn import openvpn_management as management
from vpn.endpoints import TCP, UDP
from vpn.openvpn_events import (
    Bytes,
    Down,
    Event,
    Fatal,
    Hold,
    Log,
    Need,
    Other,
    Refused,
    Rejected,
    Remote,
    State,
    Up,
)
from vpn.openvpn_login import Login
from vpn.openvpn_management import Decoder, ManagementError
from vpn.openvpn_words import split

# What OpenVPN 2.6.14 said, and what it means.
SAID: list[tuple[str, Event]] = [
    (">INFO:OpenVPN Management Interface Version 5 -- type 'help' …", Other()),
    (">HOLD:Waiting for hold release:0", Hold()),
    ("SUCCESS: hold release succeeded", Other()),
    ("ERROR: The 'remote' command is not currently available", Refused(
        " The 'remote' command is not currently available"
    )),
    (">REMOTE:127.0.0.1,1,tcp-client", Remote(TCP)),
    (">REMOTE:127.0.0.1,1,udp", Remote(UDP)),
    (">PASSWORD:Need 'Auth' username/password", Need("Auth", login=True)),
    (">PASSWORD:Need 'Auth' username/password SC:1,Your PIN", Need(
        "Auth", login=True, challenge=True
    )),
    (">PASSWORD:Need 'Private Key' password", Need("Private Key", login=False)),
    (">PASSWORD:Verification Failed: 'Auth'", Rejected("Auth")),
    (">PASSWORD:Verification Failed: 'Auth' ['CRV1:R:x:y:PIN']", Rejected(
        "Auth", "['CRV1:R:x:y:PIN']"
    )),
    (">PASSWORD:Auth-Token:secret", Other()),
    (">STATE:1795942530,WAIT,,,,,,", State("WAIT")),
    (">STATE:1795942530,CONNECTED,SUCCESS,10.8.0.2,203.0.113.1,1194,,", State(
        "CONNECTED", "SUCCESS"
    )),
    (">STATE:1795942572,RECONNECTING,auth-failure,,,,,", State(
        "RECONNECTING", "auth-failure"
    )),
    (">BYTECOUNT:4614,4562", Bytes(4614, 4562)),
    (">LOG:1795942587,N,VERIFY ERROR: depth=1, error=x", Log(
        "N", "VERIFY ERROR: depth=1, error=x"
    )),
    (">LOG:1795942587,,a", Log("", "a")),
    (">FATAL:Cannot open TUN/TAP dev", Fatal("Cannot open TUN/TAP dev")),
    (">ECHO:1,x", Other()),
    (">NEED-OK:Need 'token' confirmation", Other()),
]  # fmt: skip
STREAM = b"".join(f"{line}\r\n".encode() for line, _ in SAID)
UP = (
    b">UPDOWN:UP\r\n>UPDOWN:ENV,dev=tun0\r\n>UPDOWN:ENV,tun_mtu=1400\r\n"
    b">UPDOWN:ENV,foreign_option_1=b=c\r\n>UPDOWN:ENV,END\r\n"
)
SAYS = Up({"tun_mtu": "1400", "foreign_option_1": "b=c"})


def decoded(*pieces: bytes) -> list[Event]:
    """Feed piece after piece, taking every event as soon as it is there."""
    decoder = Decoder()
    events: list[Event] = []
    for piece in pieces:
        decoder.feed(piece)
        events += iter(decoder.next_event, None)
    return events


@pytest.mark.parametrize(("line", "event"), SAID, ids=[line for line, _ in SAID])
def test_a_line_is_an_event(line: str, event: Event) -> None:
    assert decoded(f"{line}\r\n".encode()) == [event]


def test_variables_are_one_event() -> None:
    assert decoded(UP) == [SAYS]
    assert decoded(UP.replace(b":UP\r", b":DOWN\r")) == [Down()]


def test_a_server_may_push_as_much_as_it_likes() -> None:
    """A route takes four variables, and none of them is looked at."""
    routes = b"".join(b">UPDOWN:ENV,route_%d=\r\n" % n for n in range(9000))
    head, end = UP.split(b"\r\n", 1)
    assert decoded(head + b"\r\n" + routes + end) == [SAYS]


@settings(deadline=None)
@given(st.lists(st.integers(0, len(STREAM + UP)), max_size=10))
def test_a_stream_says_the_same_however_it_is_cut(places: list[int]) -> None:
    stream = STREAM + UP
    edges = [0, *sorted(places), len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(edges)]
    events = [event for _, event in SAID]
    assert decoded(*pieces) == [*events, SAYS]


@pytest.mark.parametrize(
    "data",
    [
        b">REMOTE:x\n",
        b">REMOTE:127.0.0.1,1,sctp\n",
        b">STATE:1\n",
        b">LOG:x\n",
        b">BYTECOUNT:1\n",
        b">BYTECOUNT:-1,1\n",
        b">BYTECOUNT:" + b"9" * 20 + b",1\n",
        b">UPDOWN:ENV,a=b\n",
        b">UPDOWN:SIDEWAYS\n",
        b">UPDOWN:UP\n>HOLD:x\n",
        b">UPDOWN:UP\n>UPDOWN:x\n",
        b"x" * 16385,
        b"x" * 16385 + b"\n",
    ],
    ids=lambda data: data[:30].decode(),
)
def test_what_it_never_says_is_a_management_error(data: bytes) -> None:
    with pytest.raises(ManagementError) as refusal:
        decoded(data)
    assert str(refusal.value).isprintable()


KINDS = [line.split(":")[0] + ":" for line, _ in SAID]
KINDS += [">UPDOWN:UP", ">UPDOWN:ENV,END", ">UPDOWN:ENV,a="]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["", *KINDS]), st.binary(max_size=60))),
    st.sampled_from([b"\n", b"\r\n", b""]),
)
def test_any_bytes_are_events_or_a_management_error(
    lines: list[tuple[str, bytes]], end: bytes
) -> None:
    with suppress(ManagementError):
        decoded(*(kind.encode() + rest + end for kind, rest in lines))


def test_commands_are_what_the_notes_say() -> None:
    address = ip_address("2001:db8::1")
    assert management.begin(5) == b"state on\nlog on\nbytecount 5\n"
    assert management.release() == b"hold release\n"
    assert management.connect(address, 443) == b"remote MOD 2001:db8::1 443\n"
    assert management.call() == b"pid\n"
    assert management.skip() == b"remote SKIP\n"
    assert management.reconnect() == b"signal SIGUSR1\n"


@given(st.text(min_size=1, max_size=40).filter(str.isprintable))
def test_a_password_is_read_as_it_is(password: str) -> None:
    """Whatever stands in it, it is one word of one command."""
    said = management.login(Need("Auth", login=True), Login("a b", password))
    user, secret, end = said.decode().split("\n")
    assert split(user) == ["username", "Auth", "a b"]
    assert split(secret) == ["password", "Auth", password]
    assert end == ""

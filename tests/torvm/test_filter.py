# SPDX-License-Identifier: GPL-2.0-or-later
"""What a client may say at its control port: a short list, and nothing else."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torvm.filter import (
    CLOSING,
    DONE,
    FILTERED,
    LONGEST,
    STRANGER,
    TOO_LONG,
    Known,
    Talk,
)

KNOWN = Known("0.4.9.11 (git-0)", 100, circuits=True, socks="10.137.0.2:9050")
PHASE = 'status/bootstrap-phase=NOTICE BOOTSTRAP PROGRESS=100 TAG=done SUMMARY="Done"'
ANSWERS = {
    "GETINFO version": ["250-version=0.4.9.11", DONE],
    "getinfo version": ["250-version=0.4.9.11", DONE],
    "GETINFO status/bootstrap-phase": [f"250-{PHASE}", DONE],
    "GETINFO net/listeners/socks": [
        '250-net/listeners/socks="10.137.0.2:9050"',
        DONE,
    ],
    "GETINFO status/circuit-established version": [
        "250-status/circuit-established=1",
        "250-version=0.4.9.11",
        DONE,
    ],
    "SETEVENTS": [DONE],
    "SETEVENTS CIRC STREAM": [DONE],
    "SETEVENTS EXTENDED STATUS_CLIENT NOTICE WARN ERR": [DONE],
    "AUTHENTICATE": [DONE],
    'AUTHENTICATE "again"': [DONE],
    "PROTOCOLINFO 1": [
        "250-PROTOCOLINFO 1",
        "250-AUTH METHODS=NULL",
        '250-VERSION Tor="0.4.9.11"',
        DONE,
    ],
    "QUIT": [CLOSING],
}
# Those of control-spec, 3, that tell or change something.
REFUSED = (
    *(
        f"GETINFO {key}"
        for key in (
            "circuit-status",
            "stream-status",
            "orconn-status",
            "entry-guards",
            "ns/all",
            "address",
            "address-mappings/all",
            "config-text",
            "config-file",
            "traffic/read",
            "process/pid",
            "process/uid",
            "net/listeners/trans",
            "net/listeners/control",
            "onions/current",
            "ip-to-country/192.0.2.1",
            "VERSION",
            "version address",
        )
    ),
    "GETINFO",
    "GETCONF Bridge",
    "GETCONF SocksPort",
    "SETCONF DisableNetwork=1",
    "RESETCONF TransPort",
    "SAVECONF",
    "LOADCONF",
    "MAPADDRESS 192.0.2.1=example.com",
    "ADD_ONION NEW:BEST Port=80",
    "DEL_ONION x",
    "ONION_CLIENT_AUTH_ADD x x25519:x",
    "ONION_CLIENT_AUTH_VIEW",
    "EXTENDCIRCUIT 0",
    "SETCIRCUITPURPOSE 1 purpose=general",
    "ATTACHSTREAM 1 1",
    "REDIRECTSTREAM 1 example.com",
    "CLOSESTREAM 1 1",
    "CLOSECIRCUIT 1",
    *(
        f"SIGNAL {name}"
        for name in (
            "SHUTDOWN",
            "HALT",
            "RELOAD",
            "DUMP",
            "DEBUG",
            "CLEARDNSCACHE",
            "HEARTBEAT",
            "ACTIVE",
            "DORMANT",
            "HUP",
            "NEWNYM HALT",
            "",
        )
    ),
    "TAKEOWNERSHIP",
    "DROPOWNERSHIP",
    "DROPGUARDS",
    "DROPTIMEOUTS",
    "HSFETCH x",
    "RESOLVE example.com",
    "USEFEATURE VERBOSE_NAMES",
    "AUTHCHALLENGE SAFECOOKIE 00",
    "SETEVENTS CIRC ADDRMAP",
    "SETEVENTS HS_DESC",
    "SETEVENTS NEWCONSENSUS",
    "",
    " GETINFO version",
    "GETINFO\tversion",
    "\x00",
    "\xff\xfe",
)
ALLOWED = re.compile(
    "|".join(
        (
            *map(re.escape, (DONE, FILTERED, STRANGER, TOO_LONG, CLOSING)),
            *(
                re.escape(line)
                for lines in ANSWERS.values()
                for line in lines
                if line != DONE
            ),
        )
    )
)


def talk(*sent: bytes, known: Known = KNOWN, admitted: bool = True) -> Talk:
    """Return what became of a connection that sent this, in these pieces."""
    made = Talk(admitted=admitted)
    for piece in sent:
        made.hear(piece)
        while made.busy:
            made.answer(known)
    return made


def lines(made: Talk) -> list[str]:
    return made.unsent.decode().removesuffix("\r\n").split("\r\n")


@pytest.mark.parametrize("end", ["\r\n", "\n"])
@pytest.mark.parametrize("said", ANSWERS)
def test_what_a_browser_asks_is_answered(said: str, end: str) -> None:
    made = talk(f"{said}{end}".encode())

    assert lines(made) == ANSWERS[said]
    assert made.refused == 0
    assert made.over is (said == "QUIT")


@pytest.mark.parametrize("said", REFUSED)
def test_all_else_is_refused_and_counted(said: str) -> None:
    made = talk(f"{said}\r\n".encode("latin-1"))

    assert lines(made) == [FILTERED]
    assert made.refused == 1
    assert not made.over
    assert not made.wants


@pytest.mark.parametrize(
    "said",
    [
        b"GETINFO version",
        b"SIGNAL NEWNYM",
        b"SETEVENTS",
        b"+LOADCONF",
        b"POST / HTTP/1.1",
        b"\x16\x03\x01",
    ],
)
def test_who_has_not_authenticated_is_sent_away(said: bytes) -> None:
    """A page in a browser may send lines to any port, but not the first one."""
    made = talk(said + b"\r\nAUTHENTICATE\r\nSIGNAL NEWNYM\r\n", admitted=False)

    assert lines(made) == [STRANGER]
    assert made.over
    assert not made.wants


@pytest.mark.parametrize(
    "said", ["AUTHENTICATE", 'AUTHENTICATE "x"', "AUTHENTICATE 00ff", "authenticate"]
)
def test_one_may_authenticate_with_whatever(said: str) -> None:
    made = talk(f"{said}\r\nGETINFO version\r\n".encode(), admitted=False)

    assert lines(made) == [DONE, "250-version=0.4.9.11", DONE]


def test_the_data_of_a_command_is_not_read_as_commands() -> None:
    made = talk(b"+LOADCONF\r\nSIGNAL NEWNYM\r\n.\r\n")

    assert lines(made) == [FILTERED]
    assert made.over
    assert not made.wants


def test_another_identity_is_answered_when_it_is_there() -> None:
    """What is said meanwhile waits."""
    made = talk(b"SIGNAL NEWNYM\r\nGETINFO version\r\n")
    assert made.wants
    assert made.unsent == b""
    assert not made.busy

    made.moved()
    assert not made.wants
    while made.busy:
        made.answer(KNOWN)

    assert lines(made) == [DONE, "250-version=0.4.9.11", DONE]


@pytest.mark.parametrize(
    ("progress", "shown"), [(0, "0"), (1, "0"), (14, "10"), (89, "80"), (99, "90")]
)
def test_how_far_tor_is_does_not_tell_by_whom_it_enters(
    progress: int, shown: str
) -> None:
    """Some of its numbers are only there with a bridge (control-spec, 5.5.3)."""
    said = talk(b"GETINFO status/bootstrap-phase\r\n", known=Known(progress=progress))

    assert f" PROGRESS={shown} TAG=connecting " in lines(said)[0]


def test_without_a_tor_there_is_no_version() -> None:
    made = talk(
        b"PROTOCOLINFO\r\nGETINFO version\r\nGETINFO net/listeners/socks\r\n",
        known=Known(),
    )

    assert lines(made) == [
        "250-PROTOCOLINFO 1",
        "250-AUTH METHODS=NULL",
        DONE,
        FILTERED,
        "250-net/listeners/socks=",
        DONE,
    ]


@pytest.mark.parametrize("end", [b"", b"\r\n"])
def test_a_line_has_an_end(end: bytes) -> None:
    just = talk(b"GETINFO " + b"x" * (LONGEST - 9) + b"\r\n")
    more = talk(b"x" * (LONGEST + 1) + end)

    assert lines(just) == [FILTERED]
    assert lines(more) == [TOO_LONG]
    assert more.over


PARTS = st.one_of(
    st.binary(max_size=40),
    st.binary(max_size=2 * LONGEST),
    st.sampled_from([f"{each}\r\n".encode("latin-1") for each in REFUSED]),
    st.sampled_from([f"{each}\r\n".encode() for each in ANSWERS]),
    st.sampled_from([b"SIGNAL NEWNYM\r\n", b"GETINFO", b" ", b"\r", b"\n", b"+"]),
)


@given(untrusted_parts=st.lists(PARTS, max_size=12), admitted=st.booleans())
def test_whatever_it_says_it_is_told_no_more(
    untrusted_parts: list[bytes], *, admitted: bool
) -> None:
    made = talk(*untrusted_parts, admitted=admitted)

    if made.unsent:
        assert all(ALLOWED.fullmatch(line) for line in lines(made))
    assert not made.over or not made.busy


@given(st.lists(PARTS, max_size=8), st.lists(st.integers(1, 9), min_size=1))
def test_it_does_not_matter_in_which_pieces_it_comes(
    untrusted_parts: list[bytes], sizes: list[int]
) -> None:
    whole = b"".join(untrusted_parts)
    pieces, at = [], 0
    while at < len(whole):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(whole[at : at + size])
        at += size
    one, many = talk(whole), talk(*pieces)

    assert (one.unsent, one.over, one.wants) == (many.unsent, many.over, many.wants)

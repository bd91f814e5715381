# SPDX-License-Identifier: GPL-2.0-or-later
"""What a domain is told for a name is read strictly, or not at all."""

from contextlib import suppress
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.question import QuestionError
from controller.told import MOST, ToldError, answer, command, needs_asking

WWW = b"""\
198.51.100.80   STREAM www.example.com
198.51.100.80   DGRAM  
198.51.100.80   RAW    
2001:db8:80::80 STREAM 
2001:db8:80::80 DGRAM  
2001:db8:80::80 RAW    
"""  # noqa: W291 - as getent prints it


def told(status: int, text: bytes) -> list[str]:
    return list(map(str, answer(status, text)))


def test_each_address_is_read_once_in_the_order_in_which_it_came() -> None:
    assert told(0, WWW) == ["198.51.100.80", "2001:db8:80::80"]


def test_a_name_that_does_not_exist_has_no_address() -> None:
    assert told(2, b"") == []
    assert told(2, WWW) == []


def test_an_ipv4_address_that_is_written_in_ipv6_is_one_of_ipv4() -> None:
    assert told(0, b"::ffff:192.0.2.1 STREAM a\n") == ["192.0.2.1"]


@pytest.mark.parametrize(
    ("status", "text", "why"),
    [
        (1, b"", "exit status 1"),
        (3, b"", "exit status 3"),
        (-9, WWW, "exit status -9"),
        (0, b"192.0.2.1\n", "no line"),
        (0, b"192.0.2.1 SEQPACKET\n", "no line"),
        (0, b"\n", "no line"),
        (0, b"www.example.com STREAM\n", "no address"),
        (0, b"192.0.2.256 STREAM\n", "no address"),
        (0, b"192.0.2.01 STREAM\n", "no address"),
        (0, b"192.0.2.0/24 STREAM\n", "no address"),
        (0, b"fe80::1%eth0 STREAM\n", "one link"),
        (0, b"192.0.2.1 STREAM\n\x1b[2J STREAM\n", r"'\\x1b\[2J': no address"),
        (0, "192.0.2.\u0661 STREAM\n".encode(), "not ASCII"),
        (0, b"192.0.2.1 STREAM \xff\n", "not ASCII"),
    ],
)
def test_anything_else_is_refused(status: int, text: bytes, why: str) -> None:
    with pytest.raises(ToldError, match=why):
        answer(status, text)


def test_no_more_addresses_are_taken_than_can_be_explained() -> None:
    lines = [f"192.0.2.{n} STREAM\n".encode() for n in range(MOST + 1)]

    assert len(told(0, b"".join(lines[:MOST]) * 3)) == MOST
    with pytest.raises(ToldError, match=f"no more than {MOST}"):
        answer(0, b"".join(lines))


@given(st.binary(max_size=200))
def test_no_bytes_are_anything_but_addresses_or_refused(untrusted: bytes) -> None:
    with suppress(ToldError):
        assert all(ip_address(str(found)) == found for found in answer(0, untrusted))


def test_names_are_asked_for_and_addresses_are_not() -> None:
    assert needs_asking("www.example.com")
    assert not needs_asking("192.0.2.1")
    assert not needs_asking("2001:db8::1")
    assert command("WWW.example.com")[-1] == "www.example.com"


@pytest.mark.parametrize("host", ["-i", "a b", "a/b", "127.1", "0x7f.1", "", "a" * 64])
def test_what_is_no_name_is_not_asked_for(host: str) -> None:
    for ask in (needs_asking, command):
        with pytest.raises(QuestionError, match="no name that can be asked for"):
            ask(host)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Bridge lines are read to the last letter or not at all, and never repeated."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torvm.bridges import MAX_BRIDGES, Bridge, BridgeError, parse

FINGERPRINT = "2B280B23E1107BB62ABFC40DDCC8824814F80A72"
CERT = "cert=ssH+9rP8dG2NLDN2XuFw63hIO/9MNNinLmxQDpVa+7kTOa9/m+tGWT1SmSYpQ9uTBGa6Hw"
OBFS4 = f"obfs4 192.95.36.142:443 {FINGERPRINT} {CERT} iat-mode=0"


def test_a_line_of_the_distributor_is_a_bridge() -> None:
    assert parse(OBFS4.encode()) == (
        Bridge(
            ip_address("192.95.36.142"),
            443,
            "obfs4",
            FINGERPRINT,
            (CERT, "iat-mode=0"),
        ),
    )


@pytest.mark.parametrize(
    "line",
    [
        OBFS4,
        "192.0.2.1:9001",
        f"192.0.2.1:9001 {FINGERPRINT}",
        f"obfs4 [2001:db8::1]:443 {FINGERPRINT} {CERT}",
    ],
)
def test_tor_is_told_the_same_line(line: str) -> None:
    assert [bridge.line for bridge in parse(line.encode())] == [line]


def test_comments_empty_lines_and_the_word_itself_are_no_matter() -> None:
    text = f"# from a friend\n\n  Bridge   {OBFS4}\r\nbridge 192.0.2.1:9001\n"

    assert [bridge.line for bridge in parse(text.encode())] == [OBFS4, "192.0.2.1:9001"]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "# nothing",
        "obfs4",
        "example.com:443",
        "192.0.2.1",
        "192.0.2.1:0",
        "192.0.2.1:65536",
        "192.0.2.300:443",
        "127.0.0.1:443",
        "0.0.0.0:443",
        "224.0.0.1:443",
        "[::1]:443",
        "[::ffff:192.0.2.1]:443",
        "[fe80::1%eth0]:443",
        "snowflake 192.0.2.1:443",
        "exec /bin/sh",
        f"192.0.2.1:443 {FINGERPRINT}0",
        f"192.0.2.1:443 {FINGERPRINT} {CERT}",
        "192.0.2.1:443 cert=abc",
        f"obfs4 192.0.2.1:443 {FINGERPRINT} cert",
        f"obfs4 192.0.2.1:443 {FINGERPRINT} cert=a;b=c",
        f'obfs4 192.0.2.1:443 {FINGERPRINT} cert=a"b',
        f"obfs4 192.0.2.1:443 {FINGERPRINT} cert=a\x00b",
        f"obfs4 192.0.2.1:443 {FINGERPRINT} cert={'a' * 1100}",
        "UseBridges 0",
        "192.0.2.1:443\\\nControlPort 9051",
        "obfs4 192.0.2.1:443 cért=a",
    ],
)
def test_whatever_else_is_refused(line: str) -> None:
    with pytest.raises(BridgeError):
        parse(line.encode())


def test_one_bad_line_takes_the_file_with_it_and_is_named() -> None:
    with pytest.raises(BridgeError, match=r"^bridges:3: expected"):
        parse(f"{OBFS4}\n\nSECRET\n".encode())


def test_more_than_anybody_has_are_refused() -> None:
    with pytest.raises(BridgeError, match=f"at most {MAX_BRIDGES}"):
        parse(b"192.0.2.1:9001\n" * (MAX_BRIDGES + 1))


@given(st.text(max_size=40))
def test_no_message_repeats_what_a_line_says(text: str) -> None:
    """Who uses which bridge is what may harm them."""
    try:
        told = repr(parse(f"{OBFS4}\n192.0.2.77:9001 SECRET{text}".encode()))
    except BridgeError as error:
        told = str(error)
    assert "192.0.2" not in told
    assert "SECRET" not in told


def test_nor_does_a_bridge_that_was_read() -> None:
    assert repr(parse(OBFS4.encode())) == "(Bridge(…),)"


@given(st.binary(max_size=200))
def test_anything_at_all_is_read_or_refused(untrusted_text: bytes) -> None:
    try:
        found = parse(untrusted_text)
    except BridgeError:
        return
    for bridge in found:
        assert "\n" not in bridge.line
        assert '"' not in bridge.line

# SPDX-License-Identifier: GPL-2.0-or-later
"""What the daemon logs is told to people in one line."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpn.openvpn_trouble import (
    NO_ANSWER,
    NO_WORD,
    NOTHING,
    WRONG_KEY,
    Trouble,
    of_attempt,
    of_end,
    of_log,
    of_restart,
    worse,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (
            "VERIFY ERROR: depth=0, error=certificate has expired: CN=x, serial=1",
            "the server's certificate has expired",
        ),
        (
            "VERIFY ERROR: depth=1, error=self-signed certificate in chain: CN=lab CA",
            "the server's certificate is not of the authority in <ca>",
        ),
        (
            "VERIFY ERROR: depth=0, error=CRL has expired: CN=x",
            "the server's certificate: 'CRL has expired'",
        ),
        (
            "VERIFY X509NAME ERROR: CN=x, must be y",
            "the server is not who the profile says",
        ),
        (
            "OpenSSL: error:0A000415:SSL routines::sslv3 alert certificate expired",
            "the server says that <cert> has expired",
        ),
        (
            "TCP: connect to [AF_INET]x failed: Connection refused",
            "the server refuses the connection",
        ),
        (
            "read UDPv4 [EHOSTUNREACH|EHOSTUNREACH]: No route to host (fd=4,code=113)",
            "the server cannot be reached",
        ),
        (
            "TLS Error: cannot locate HMAC in incoming packet from [AF_INET]x:1194",
            "<tls-crypt> or <tls-auth> is not the server's",
        ),
        ("tls-crypt unwrap error: packet replay", ""),
        ("Authenticate/Decrypt packet error: bad packet ID (may be a replay)", ""),
        ("Initialization Sequence Completed", ""),
    ],
)
def test_a_line_of_the_log_has_a_cause(line: str, text: str) -> None:
    assert of_log(line).text == text


def test_the_most_telling_line_counts() -> None:
    """The last words of an attempt say less than those before them."""
    expired = of_log("VERIFY ERROR: depth=0, error=certificate has expired: CN=x")
    broken_off = of_restart("tls-error", answered=True)
    rejected = of_restart("auth-failure", answered=True)
    assert worse(worse(NOTHING, expired), broken_off) == expired
    assert rejected.text == "wrong user name or password"
    assert of_restart("something new", answered=False) == NOTHING
    assert of_end("Cannot do it").text == "openvpn: 'Cannot do it'"


def test_a_connection_that_ends_before_a_word_is_not_one_that_ends_later() -> None:
    """Only the first may be for a key: afterwards both have understood each other."""
    late = of_restart("connection-reset", answered=True)

    assert of_restart("connection-reset", answered=False) == NO_WORD
    assert late.text == "the server broke the connection"
    assert of_attempt(late, {}, NOW) == late


@pytest.mark.parametrize("met", [NO_ANSWER, NO_WORD])
@pytest.mark.parametrize("block", ["tls-auth", "tls-crypt", "tls-crypt-v2"])
def test_silence_names_the_key_that_the_profile_has(met: Trouble, block: str) -> None:
    said = of_attempt(met, {block: ""}, NOW)

    assert said.text.startswith(met.text)
    assert f"<{block}>" in said.text
    assert of_attempt(WRONG_KEY, {block: ""}, NOW) == WRONG_KEY


@given(st.text())
def test_a_cause_is_one_printable_line(text: str) -> None:
    for said in (of_log(text), of_log(f"VERIFY ERROR: error={text}"), of_end(text)):
        assert said.text.isprintable()
        assert len(said.text) < 800

# SPDX-License-Identifier: GPL-2.0-or-later
"""What the daemon logs is told to people in one line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpn.openvpn_trouble import NOTHING, of_end, of_log, of_restart, worse


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
        ("Initialization Sequence Completed", ""),
    ],
)
def test_a_line_of_the_log_has_a_cause(line: str, text: str) -> None:
    assert of_log(line).text == text


def test_the_most_telling_line_counts() -> None:
    """The last words of an attempt say less than those before them."""
    expired = of_log("VERIFY ERROR: depth=0, error=certificate has expired: CN=x")
    assert worse(worse(NOTHING, expired), of_restart("tls-error")) == expired
    assert of_restart("auth-failure").text == "wrong user name or password"
    assert of_restart("something new") == NOTHING
    assert of_end("Cannot do it").text == "openvpn: 'Cannot do it'"


@given(st.text())
def test_a_cause_is_one_printable_line(text: str) -> None:
    for said in (of_log(text), of_log(f"VERIFY ERROR: error={text}"), of_end(text)):
        assert said.text.isprintable()
        assert len(said.text) < 800

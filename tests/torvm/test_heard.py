# SPDX-License-Identifier: GPL-2.0-or-later
"""What tor says becomes values, without the addresses that are in it."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torvm import heard
from torvm.listeners import Kind, Listener
from torvm.said import (
    NO_ENTRY,
    NO_WAY,
    Bootstrap,
    ByProxy,
    Circuit,
    Clock,
    Consensus,
    Established,
    Hop,
    Ready,
)


def test_tor_says_how_it_is() -> None:
    entries = {
        "version": "0.4.9.11",
        "status/bootstrap-phase": 'NOTICE BOOTSTRAP PROGRESS=85 TAG=x SUMMARY="A b"',
        "status/circuit-established": "0",
        "net/listeners/trans": '"10.137.0.2:10000" "[fd09::2]:10000"',
        "net/listeners/dns": '"127.0.0.1:53"',
        "net/listeners/socks": "",
    }

    assert heard.ready(entries) == Ready(
        "0.4.9.11",
        85,
        circuits=False,
        listening=frozenset(
            {
                Listener(Kind.TRANS, ip_address("10.137.0.2"), 10000),
                Listener(Kind.TRANS, ip_address("fd09::2"), 10000),
                Listener(Kind.DNS, ip_address("127.0.0.1"), 53),
            }
        ),
    )


@pytest.mark.parametrize(
    ("level", "action", "words", "said"),
    [
        (
            "NOTICE",
            "BOOTSTRAP",
            {"PROGRESS": "10", "SUMMARY": "Connected to a relay"},
            Bootstrap(10, "Connected to a relay"),
        ),
        (
            "WARN",
            "BOOTSTRAP",
            {
                "PROGRESS": "5",
                "SUMMARY": "Connecting",
                "REASON": "TIMEOUT",
                "RECOMMENDATION": "warn",
                "HOSTADDR": "192.0.2.1:443",
            },
            Bootstrap(5, "Connecting", "TIMEOUT", stuck=True),
        ),
        (
            "WARN",
            "BOOTSTRAP",
            {"PROGRESS": "5", "REASON": "TIMEOUT", "RECOMMENDATION": "ignore"},
            Bootstrap(5, "", "TIMEOUT"),
        ),
        ("NOTICE", "CIRCUIT_ESTABLISHED", {}, Established(circuits=True)),
        ("NOTICE", "CIRCUIT_NOT_ESTABLISHED", {}, Established(circuits=False)),
        ("WARN", "CLOCK_SKEW", {"SKEW": "-10800"}, Clock(-10800)),
        ("WARN", "CLOCK_JUMPED", {"TIME": "7200"}, Clock(None)),
        ("NOTICE", "CONSENSUS_ARRIVED", {}, Consensus()),
        ("NOTICE", "SOMETHING_NEW", {}, None),
    ],
)
def test_what_a_status_means(
    level: str, action: str, words: dict[str, str], said: object
) -> None:
    assert heard.status(level, action, words) == said


RELAY = "with 192.0.2.7:443 ID=<none> RSA_ID=32742AD57C3D243DA0713BB6DFD82118DF573D2E"
CLIENT = f"Proxy Client: unable to connect OR connection (handshaking (proxy)) {RELAY}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f'{CLIENT} ("authentication failed")', ByProxy(NO_ENTRY)),
        (
            (
                f'{CLIENT} ("server doesn'
                "\\'t support any of our available authentication methods\")"
            ),
            ByProxy(NO_ENTRY),
        ),
        (
            (
                "The https proxy sent back an unexpected status code 401"
                ' ("Unauthorized"). Closing.'
            ),
            ByProxy(NO_ENTRY),
        ),
        (
            (
                "The https proxy sent back an unexpected status code 500"
                ' ("Unable to connect"). Closing.'
            ),
            ByProxy(NO_WAY),
        ),
        (f'{CLIENT} ("Network unreachable")', ByProxy(NO_WAY)),
        (
            (
                "The connection to the SOCKS5 proxy server at 192.0.2.9:9 just failed."
                " Make sure that the proxy server is up and running."
            ),
            ByProxy("does not answer"),
        ),
        (CLIENT, None),
        ("Your application is giving Tor only a numeric address", None),
    ],
)
def test_what_tor_warns_of_its_proxy_is_known_by_its_words(
    text: str, said: ByProxy | None
) -> None:
    """Debian's tor 0.4.9 wrote these; its addresses go no further."""
    assert heard.warning(text) == said


def test_circuits_of_one_set_have_one_key() -> None:
    path = [("AAAA", "nick"), ("BBBB", None)]

    assert heard.circuit("7", "BUILT", path, {"CONFLUX_ID": "SET"}) == Circuit(
        "7", "BUILT", "SET", "", (Hop("AAAA", "nick"), Hop("BBBB", ""))
    )
    assert heard.circuit("7", "BUILT", path, {"purpose": "GENERAL"}).key == "7"


def test_a_stream_without_a_circuit_has_none() -> None:
    assert heard.stream("1", "NEW", "0", "10.137.0.5").circuit == ""
    assert heard.stream("1", "NEW", "0", "fd09::5").source == ip_address("fd09::5")
    assert heard.stream("1", "SUCCEEDED", "7", None).source is None


@given(st.dictionaries(st.text(), st.text()))
def test_whatever_tor_says_it_is_heard(words: dict[str, str]) -> None:
    for action in ("BOOTSTRAP", "CLOCK_SKEW"):
        assert heard.status("WARN", action, words) is not None
    assert heard.places(words) == heard.ready(words).listening


@given(st.text())
def test_what_is_shown_of_tors_words_is_plain_and_short(text: str) -> None:
    shown = heard.plain(text)

    assert len(shown) <= heard.SHOWN
    assert all(" " <= letter <= "~" for letter in shown)

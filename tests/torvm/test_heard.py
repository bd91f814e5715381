# SPDX-License-Identifier: GPL-2.0-or-later
"""What tor says becomes values, without the addresses that are in it."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torvm import heard
from torvm.listeners import Kind, Listener
from torvm.said import Bootstrap, Circuit, Clock, Consensus, Established, Hop, Ready


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

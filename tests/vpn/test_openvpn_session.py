# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon is followed by what it tells, and told only what is to be done."""

from ipaddress import ip_address

import pytest

from vpn.endpoints import TCP, UDP, Target
from vpn.openvpn_events import (
    Bytes,
    Down,
    Event,
    Fatal,
    Hold,
    Log,
    Need,
    Other,
    Rejected,
    Remote,
    State,
    Up,
)
from vpn.openvpn_login import Login
from vpn.openvpn_session import SILENT, Outcome, Session
from vpn.openvpn_trouble import WRONG_KEY, Trouble

TARGET = Target(ip_address("203.0.113.1"), 1194)
OWN = Up({"ifconfig_local": "10.8.0.2"})
CONNECTED, AGAIN = State("CONNECTED", "SUCCESS"), State("RECONNECTING", "tls-error")


def said(session: Session) -> list[str]:
    """Take what is to be sent."""
    words, session.unsaid = session.unsaid.decode().splitlines(), b""
    return words


def begun(login: Login | None = None) -> Session:
    session = Session(login)
    said(session)
    return session


def told(session: Session, *events: Event) -> list[Outcome]:
    outcomes = [session.take(event) for event in events]
    return [outcome for outcome in outcomes if outcome is not None]


def test_it_is_asked_to_tell_and_nothing_else_at_first() -> None:
    assert said(Session(None)) == ["state on", "log on", "bytecount 10"]


def test_it_connects_only_where_it_is_told_to() -> None:
    session = begun()
    told(session, Other(), Hold())
    assert (session.held, said(session)) == (True, [])

    session.release()
    told(session, Remote(TCP))
    session.connect(TARGET)
    told(session, Remote(UDP))
    session.connect(TARGET)

    assert said(session) == [
        "hold release",
        "remote SKIP",
        "remote MOD 203.0.113.1 1194",
    ]
    assert session.asked is None


def test_it_is_up_with_an_address_and_no_longer_when_it_begins_anew() -> None:
    session = begun()
    assert told(session, State("AUTH"), OWN, CONNECTED) == [Outcome.CONNECTED]
    assert session.connected
    assert told(session, AGAIN) == [Outcome.ENDED]
    assert not session.connected


def test_a_device_that_was_closed_is_out_of_use_at_once() -> None:
    session = begun()
    told(session, OWN, CONNECTED)
    assert told(session, Down()) == [Outcome.DOWN]
    assert not session.connected


def test_another_address_is_out_of_use_until_it_connects_with_it() -> None:
    """Only then is it looked at whose address that is."""
    session = begun()
    told(session, OWN, CONNECTED)

    assert told(session, Up({"ifconfig_local": "10.137.0.5"})) == [Outcome.DOWN]
    assert not session.connected
    assert told(session, CONNECTED) == [Outcome.CONNECTED]


def test_a_server_that_gives_no_address_is_left() -> None:
    session = begun()
    assert told(session, Up({}), CONNECTED) == []
    assert said(session) == ["signal SIGUSR1"]
    assert session.trouble.text == "the server gave no address"


def test_a_login_is_said_when_it_is_asked_for() -> None:
    session = begun(Login("a", 'b"'))
    assert told(session, Need("Auth", login=True)) == []
    assert said(session) == ['username "Auth" "a"', 'password "Auth" "b\\""']
    assert told(session, Rejected("Auth"), AGAIN) == [Outcome.REJECTED]


@pytest.mark.parametrize(
    ("need", "text"),
    [
        (Need("Auth", login=True), "the server wants a login"),
        (Need("Auth", login=True, challenge=True), "a question of a person"),
        (Need("Private Key", login=False), "<key> has a passphrase"),
        (Need("HTTP Proxy", login=True), "openvpn asks for 'HTTP Proxy'"),
        (Need("A\x1b" * 300, login=True), "openvpn asks for 'A\\x1bA"),
    ],
    ids=["nothing given", "challenge", "passphrase", "for another", "nonsense"],
)
def test_what_nobody_can_answer_is_hopeless(need: Need, text: str) -> None:
    """And to a login for anything but the server ours is not said."""
    session = begun(None if need.what == "Auth" else Login("a", "b"))
    assert told(session, need) == [Outcome.HOPELESS]
    assert said(session) == []
    assert text in session.trouble.text


def test_a_tunnel_that_only_sends_begins_anew() -> None:
    session = begun()
    told(session, OWN, CONNECTED, Bytes(100, 100))
    for sent in range(SILENT):
        assert said(session) == []
        told(session, Bytes(100, 200 + sent))
    assert said(session) == ["signal SIGUSR1"]
    assert session.trouble.text == "the server went silent"


def test_a_tunnel_that_is_idle_or_hears_something_stays() -> None:
    session = begun()
    told(session, OWN, CONNECTED)
    for count in range(3 * SILENT):
        told(session, Bytes(100 + count // 4, 100 + count))
    told(session, *[Bytes(200, 200)] * (3 * SILENT))
    assert said(session) == []


def test_an_attempt_that_takes_too_long_says_how_far_it_came() -> None:
    session = begun()
    session.give_up()
    assert session.trouble.text == "the server does not answer"
    session.release()
    told(session, State("WAIT"), State("AUTH"))
    session.give_up()
    assert session.trouble.text == "the server broke off the handshake"
    session.release()
    told(session, OWN, CONNECTED)
    session.give_up()
    assert session.trouble.text.startswith("connected, but nothing comes back")
    assert not session.connected


def test_each_attempt_has_a_trouble_of_its_own() -> None:
    session = begun()
    told(session, Log("N", "VERIFY ERROR: depth=0, error=certificate has expired"))
    told(session, Fatal("no more"))
    assert session.trouble.text == "the server's certificate has expired"
    session.release()
    assert session.trouble == Trouble("", 0)


def test_what_no_key_opens_means_nothing_once_the_server_was_understood() -> None:
    """Then it is of somebody else on the way, who cannot be who ends the tunnel."""
    junk = Log("N", "tls-crypt unwrap error: packet authentication failed")
    session = begun()
    told(session, State("WAIT"), junk)
    assert session.trouble == WRONG_KEY
    session.release()
    told(session, State("WAIT"), State("AUTH"), junk)
    assert session.trouble == Trouble("", 0)


def test_the_cipher_is_what_the_log_says() -> None:
    session = begun()
    told(session, Log("", "Data Channel: cipher 'AES-128-GCM', peer-id: 0"))
    assert session.cipher == "AES-128-GCM"

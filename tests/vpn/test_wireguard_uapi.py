# SPDX-License-Identifier: GPL-2.0-or-later
"""What wireguard-go is told and what it tells, and that neither ever waits."""

import socket
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpn.endpoints import Endpoint, Target
from vpn.wireguard_device import PeerState, Setting
from vpn.wireguard_profile import Key, Peer
from vpn.wireguard_uapi import (
    GET,
    Conversation,
    UapiError,
    read,
    set_text,
    steer_text,
)

PRIVATE, PUBLIC, SHARED = (Key(bytes([n]) * 32) for n in (1, 2, 3))
TARGET = Target(ip_address("203.0.113.1"), 51820)
TARGET6 = Target(ip_address("2001:db8::1"), 443)
PEER = Peer(
    PUBLIC,
    Endpoint(TARGET.address, TARGET.port),
    (ip_network("0.0.0.0/0"), ip_network("::/0")),
    SHARED,
    25,
)
TOLD = f"""private_key={"01" * 32}
listen_port=51820
fwmark=51820
public_key={"02" * 32}
preshared_key={"03" * 32}
protocol_version=1
endpoint=203.0.113.1:51820
last_handshake_time_sec=1700000000
last_handshake_time_nsec=5
tx_bytes=1234
rx_bytes=99
persistent_keepalive_interval=25
allowed_ip=0.0.0.0/0
errno=0"""


def test_a_setting_replaces_every_peer() -> None:
    assert set_text(Setting(PRIVATE, 0, PEER, TARGET)).decode().splitlines() == [
        "set=1",
        f"private_key={'01' * 32}",
        "listen_port=0",
        "replace_peers=true",
        f"public_key={'02' * 32}",
        f"preshared_key={'03' * 32}",
        "endpoint=203.0.113.1:51820",
        "persistent_keepalive_interval=25",
        "replace_allowed_ips=true",
        "allowed_ip=0.0.0.0/0",
        "allowed_ip=::/0",
        "",
    ]


def test_a_setting_without_a_server_has_no_peer() -> None:
    assert b"public_key" not in set_text(Setting(PRIVATE, 0))
    assert b"replace_peers=true" in set_text(Setting(PRIVATE, 0, PEER))


def test_an_ipv6_server_is_in_brackets() -> None:
    assert b"endpoint=[2001:db8::1]:443\n" in set_text(
        Setting(PRIVATE, 0, PEER, TARGET6)
    )


def test_steering_makes_no_new_peer() -> None:
    assert steer_text(PUBLIC, TARGET6).decode().splitlines() == [
        "set=1",
        f"public_key={'02' * 32}",
        "update_only=true",
        "endpoint=[2001:db8::1]:443",
        "",
    ]


def test_an_answer_is_read() -> None:
    handshake = 1_700_000_000 * 10**9 + 5

    assert read(TOLD.encode()) == [PeerState(PUBLIC, TARGET, handshake, 99, 1234)]


def test_a_peer_that_was_never_heard_has_no_endpoint() -> None:
    told = f"public_key={'02' * 32}\nerrno=0"

    assert read(told.encode()) == [PeerState(PUBLIC)]


@pytest.mark.parametrize(
    "untrusted",
    [b"", b"errno=-22", b"errno=", b"public_key=zz\nerrno=0", b"\xff\nerrno=1"],
)
def test_a_refusal_and_nonsense_are_errors(untrusted: bytes) -> None:
    with pytest.raises(UapiError):
        read(untrusted)


@given(st.binary(max_size=300))
def test_no_answer_breaks_the_reader(untrusted: bytes) -> None:
    with suppress(UapiError):
        read(untrusted)


@pytest.fixture
def ends() -> Iterator[tuple[Conversation, socket.socket]]:
    near, far = socket.socketpair()
    talk = Conversation(near)
    yield talk, far
    talk.close()
    far.close()


Ends = tuple[Conversation, socket.socket]


def test_answers_come_in_pieces_and_in_order(ends: Ends) -> None:
    """The second question is sent when the first one is answered."""
    talk, far = ends
    talk.ask(GET)
    talk.ask(steer_text(PUBLIC, TARGET))
    assert far.recv(999) == GET

    far.send(f"{TOLD}\n\nerr".encode())
    assert [len(peers) for peers in talk.answers()] == [1]
    assert far.recv(999) == steer_text(PUBLIC, TARGET)
    assert list(talk.answers()) == []
    far.send(b"no=0\n\n")
    assert list(talk.answers()) == [[]]


def test_a_closed_socket_is_an_error(ends: Ends) -> None:
    talk, far = ends
    far.close()

    with pytest.raises(OSError, match=r"closed|Broken"):
        list(talk.answers())


def test_a_daemon_that_does_not_listen_costs_no_time(ends: Ends) -> None:
    """What does not fit waits, and there is a limit to that."""
    talk, _ = ends
    many = set_text(Setting(PRIVATE, 0, PEER, TARGET)) * 5000

    def insist() -> None:
        for _ in range(200):
            talk.ask(many)

    with pytest.raises(UapiError, match="does not answer"):
        insist()


def test_a_daemon_that_talks_for_ever_is_cut_off(ends: Ends) -> None:
    talk, far = ends
    far.settimeout(0)

    def listen() -> None:
        for _ in range(200):
            with suppress(BlockingIOError):
                far.send(b"x" * 65536)
            list(talk.answers())

    with pytest.raises(UapiError, match="too much"):
        listen()

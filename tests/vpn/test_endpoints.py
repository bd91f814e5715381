# SPDX-License-Identifier: GPL-2.0-or-later
"""Servers are tried in turn, with patience, and names are asked rarely."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpn.endpoints import (
    ASK_AFTER,
    MOST_PATIENCE,
    MOST_PAUSE,
    Endpoint,
    EndpointError,
    Rotation,
    Target,
    why_refused,
)

A, B = ip_address("203.0.113.1"), ip_address("203.0.113.2")
ONE, TWO = Endpoint(A, 51820), Endpoint(B, 51821)
NAMED = Endpoint("vpn.example", 51820)


def test_servers_are_tried_in_turn_and_the_first_one_again() -> None:
    rotation = Rotation((ONE, TWO))
    seen = []
    for _ in range(4):
        seen.append(rotation.endpoint)
        rotation = rotation.failed()

    assert seen == [ONE, TWO, ONE, TWO]


def test_a_server_that_works_is_kept_and_a_later_failure_moves_on() -> None:
    rotation = Rotation((ONE, TWO)).failed().worked()

    assert rotation.target() == Target(B, 51821)
    assert rotation.failed().target() == Target(A, 51820)


def test_the_first_round_is_quick_and_then_there_are_pauses() -> None:
    """Each server has one chance at once; then the pauses double."""
    rotation = Rotation((ONE, TWO))
    pauses = []
    for _ in range(8):
        pauses.append(rotation.pause())
        rotation = rotation.failed()

    assert pauses == [0, 0, 1, 1, 2, 2, 4, 4]


@given(st.integers(0, 10_000))
def test_patience_and_pause_have_an_end(failures: int) -> None:
    rotation = Rotation((ONE,), failures=failures)

    assert 0 < rotation.patience() <= MOST_PATIENCE
    assert rotation.pause() <= MOST_PAUSE
    assert failures == 0 or rotation.pause() > 0


def test_success_ends_the_back_off() -> None:
    rotation = Rotation((ONE,), failures=7).worked()

    assert rotation.pause() == 0


def test_a_name_is_asked_before_the_first_attempt() -> None:
    rotation = Rotation((NAMED,))

    assert rotation.target() is None
    assert rotation.question() == "vpn.example"


def test_the_answers_of_a_name_are_tried_one_by_one() -> None:
    rotation = Rotation((NAMED,)).answered("vpn.example", {B, A})
    seen = []
    for _ in range(3):
        seen.append(rotation.target())
        rotation = rotation.failed()

    assert seen == [Target(A, 51820), Target(B, 51820), Target(A, 51820)]


def test_a_name_is_asked_again_only_after_several_failed_attempts() -> None:
    rotation = Rotation((NAMED,)).answered("vpn.example", {A})
    asked = []
    for _ in range(ASK_AFTER + 1):
        asked.append(rotation.question())
        rotation = rotation.failed()

    assert asked == [None] * ASK_AFTER + ["vpn.example"]


def test_every_answer_is_tried_before_the_name_is_asked_again() -> None:
    many = [ip_address(f"203.0.113.{n}") for n in range(1, ASK_AFTER + 3)]
    rotation = Rotation((NAMED,)).answered("vpn.example", many)
    tried = set()
    while rotation.question() is None:
        target = rotation.target()
        assert target is not None
        tried.add(target.address)
        rotation = rotation.failed()

    assert tried == set(many)


def test_known_addresses_count_again_when_nobody_answers() -> None:
    rotation = Rotation((NAMED,)).answered("vpn.example", {A})
    while rotation.question() is None:
        rotation = rotation.failed()

    assert rotation.failed().target() == Target(A, 51820)


def test_an_empty_answer_is_no_answer() -> None:
    rotation = Rotation((NAMED,)).answered("vpn.example", ())

    assert rotation.target() is None
    assert rotation.question() == "vpn.example"


def test_one_server_that_cannot_be_found_does_not_hold_up_the_other() -> None:
    rotation = Rotation((NAMED, ONE)).failed()

    assert rotation.target() == Target(A, 51820)
    assert rotation.question() is None


@pytest.mark.parametrize(
    ("host", "port"),
    [(A, 0), (A, 65536), (A, -1), ("", 1), ("a b", 1), ("-x", 1), ("127.1", 1)],
)
def test_what_is_no_endpoint_cannot_be_made(host: str, port: int) -> None:
    with pytest.raises(EndpointError, match="expected"):
        Endpoint(host, port)


OWN = (ip_address("198.51.100.7"),)
CLIENTS = (ip_network("203.0.113.128/25"),)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("10.0.0.1", "is private"),
        ("172.31.255.255", "is private"),
        ("192.168.1.1", "is private"),
        ("100.64.0.1", "is private"),
        ("169.254.1.1", "is private"),
        ("fd00::1", "is private"),
        ("fe80::1", "is private"),
        ("::ffff:10.0.0.1", "is private"),
        ("2002:a00:1::1", "is private"),
        ("64:ff9b::10.0.0.1", "is private"),
        ("0.0.0.0", "is not the address of one host"),
        ("127.0.0.1", "is not the address of one host"),
        ("255.255.255.255", "is not the address of one host"),
        ("224.0.0.1", "is not the address of one host"),
        ("::", "is not the address of one host"),
        ("::1", "is not the address of one host"),
        ("ff02::1", "is not the address of one host"),
        ("198.51.100.7", "is an address of this domain"),
        ("::ffff:198.51.100.7", "is an address of this domain"),
        ("203.0.113.200", "is in the network of the clients"),
    ],
)
def test_an_answer_that_would_open_another_way_is_refused(
    address: str, reason: str
) -> None:
    """TunnelCrack's ServerIP: a false answer would make the hole a way out."""
    said = why_refused(ip_address(address), OWN, CLIENTS)

    assert said is not None
    assert said.startswith(reason)


@pytest.mark.parametrize("address", ["203.0.113.1", "9.9.9.9", "2620:fe::9"])
def test_a_public_address_is_taken(address: str) -> None:
    assert why_refused(ip_address(address), OWN, CLIENTS) is None


def test_an_address_that_the_user_wrote_may_be_private_but_not_our_own() -> None:
    home = ip_address("192.168.1.1")

    assert why_refused(home, OWN, CLIENTS, written=True) is None
    assert why_refused(home, (home,), CLIENTS, written=True) is not None
    assert why_refused(ip_address("127.0.0.1"), written=True) is not None

# SPDX-License-Identifier: GPL-2.0-or-later
"""A probe asks until somebody answers, and never waits."""

import math
import select
import socket
from collections.abc import Callable, Iterator
from ipaddress import ip_address

import dns.message
import pytest

from vpn.probe import AGAIN, Probe

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("net")]

FIRST, SECOND = ip_address("192.0.2.53"), ip_address("192.0.2.54")
PATIENCE = 20.0  # seconds; only a failing test waits that long


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def probe(clock: Clock) -> Iterator[Probe]:
    made = Probe(clock)
    yield made
    made.stop()


@pytest.fixture
def resolver(ip: Callable[[str], str]) -> Iterator[socket.socket]:
    ip("link set lo up")
    for address in (FIRST, SECOND):
        ip(f"address add {address}/32 dev lo")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind((str(FIRST), 53))
        made.settimeout(PATIENCE)
        yield made


def answered(probe: Probe) -> bool:
    assert select.select([probe], [], [], PATIENCE)[0]
    return probe.handle()


def test_it_asks_for_the_root_and_any_answer_counts(
    probe: Probe, resolver: socket.socket
) -> None:
    probe.begin((FIRST,))
    assert not probe.handle()

    question, sender = resolver.recvfrom(512)
    read = dns.message.from_wire(question)
    assert read.question[0].to_text() == ". IN NS"
    resolver.sendto(question[:2] + b"\x81\x85" + question[4:], sender)  # REFUSED

    assert answered(probe)
    assert not probe.handle()
    assert probe.next_deadline() == math.inf


def test_it_asks_the_next_one_in_its_turn(
    probe: Probe, resolver: socket.socket, clock: Clock
) -> None:
    probe.begin((SECOND, FIRST))
    probe.handle()
    clock.now += AGAIN
    probe.handle()

    assert resolver.recv(512)
    assert probe.next_deadline() == clock.now + AGAIN


def test_a_port_that_is_closed_is_no_answer(
    probe: Probe, resolver: socket.socket
) -> None:
    """The kernel itself says so, also where nothing went through any tunnel."""
    assert resolver.fileno() >= 0
    probe.begin((SECOND,))
    probe.handle()

    assert not answered(probe)


def test_without_a_way_it_goes_on_asking(probe: Probe, clock: Clock) -> None:
    probe.begin((FIRST,))
    for _ in range(3):
        assert not probe.handle()
        clock.now += AGAIN

    assert probe.next_deadline() <= clock.now


def test_told_to_stop_it_asks_no_more(probe: Probe) -> None:
    probe.begin((FIRST,))
    probe.stop()

    assert probe.next_deadline() == math.inf
    assert not probe.handle()


def test_without_anybody_to_ask_it_does_nothing(probe: Probe) -> None:
    probe.begin(())

    assert probe.next_deadline() == math.inf


def test_told_to_begin_again_it_does_not_hurry(probe: Probe, clock: Clock) -> None:
    probe.begin((FIRST,))
    probe.handle()

    probe.begin((FIRST,))

    assert probe.next_deadline() == clock.now + AGAIN

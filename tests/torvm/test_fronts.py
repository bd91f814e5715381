# SPDX-License-Identifier: GPL-2.0-or-later
"""Names in bridge lines: asked seldom, only while the uplink carries the questions."""

import math
import os
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from rules.facts import Carried, Facts, Uid, Uplink
from tests.torvm.fakes import FakeNames
from torvm.fronts import PATIENCE, PAUSE, Fronts, write_hosts

RESOLVER, OWN = ip_address("10.139.1.1"), ip_address("10.137.0.2")
FRONT, OTHER = ip_address("198.51.100.7"), ip_address("2001:db8::7")
NAME = "front.example.com"
OUT = Facts(
    uplinks=(
        Uplink("eth0", 9, frozenset({OWN}), gateways=(ip_address("10.137.0.1"),)),
    ),
    resolvers=frozenset({RESOLVER}),
    here=frozenset({OWN}),
)


class World:
    """Fronts with a clock, looked at as the driver does."""

    def __init__(self) -> None:
        self.now = 100.0
        self.names = FakeNames()
        self.fronts = Fronts(lambda: self.now, self.names)
        self.fronts.want(frozenset({NAME}))

    def turn(self, facts: Facts = OUT, *, ready: bool = False) -> bool:
        """Look, begin what is due, ask if that is carried; whether it asks."""
        self.fronts.look(facts)
        self.fronts.due(ready=ready)
        self.fronts.ask()
        return self.fronts.asking


@pytest.fixture
def world() -> World:
    return World()


def test_a_name_is_asked_once_there_is_a_link_and_its_answer_kept(world: World) -> None:
    assert not world.turn(replace(OUT, uplinks=()))
    assert world.turn()
    assert world.names.servers == (RESOLVER,)
    assert not world.fronts.handle()
    world.names.found[NAME] = frozenset({FRONT, OTHER})

    assert world.fronts.handle()
    assert world.fronts.known == {NAME: {FRONT, OTHER}}
    assert not world.fronts.asking
    assert world.names.wanted == frozenset()


def test_only_meanwhile_the_agent_may_talk_to_the_resolvers(world: World) -> None:
    assert list(world.fronts.carried()) == []
    world.turn()
    assert set(world.fronts.carried()) == {
        Carried(Uid(os.getuid()), proto, (RESOLVER, 53)) for proto in (6, 17)
    }
    world.names.found[NAME] = frozenset({FRONT})
    world.fronts.handle()

    assert list(world.fronts.carried()) == []


def test_nothing_is_sent_before_the_uplink_carries_it(world: World) -> None:
    """`ask` is called after the rules; the control is the test before the last."""
    world.fronts.look(OUT)
    assert world.fronts.due(ready=False)
    world.fronts.handle()

    assert world.names.wanted == frozenset()


def test_without_an_answer_it_is_asked_again_after_a_pause(world: World) -> None:
    world.turn()
    world.now += PATIENCE
    assert world.fronts.handle()
    assert world.fronts.problem == "no answer in time"
    assert not world.turn()
    assert world.fronts.next_deadline() == world.now + PAUSE
    world.now += PAUSE

    assert world.turn()


def test_why_there_is_none_is_told_without_the_name(world: World) -> None:
    world.turn()
    world.names.failed[NAME] = "no such name"
    world.fronts.handle()

    assert world.fronts.problem == "no such name"


def test_who_has_circuits_asks_nothing(world: World) -> None:
    world.turn()
    world.names.found[NAME] = frozenset({FRONT})
    world.fronts.handle()
    world.now += PAUSE
    assert not world.turn(ready=True)
    assert world.fronts.next_deadline() > world.now
    world.now += PAUSE

    assert world.turn(ready=False)


def test_an_answer_that_failed_takes_no_address_away(world: World) -> None:
    world.turn()
    world.names.found[NAME] = frozenset({FRONT})
    world.fronts.handle()
    world.now += PAUSE
    del world.names.found[NAME]
    world.turn()
    world.now += PATIENCE
    world.fronts.handle()

    assert world.fronts.known == {NAME: {FRONT}}
    assert world.fronts.problem == ""


def test_an_address_of_this_domain_or_its_clients_is_no_front(world: World) -> None:
    """Nor one that nobody outside has: it would be a host of the local network."""
    client = ip_address("198.51.100.5")
    words = "127.0.0.1 ff02::1 192.168.1.1 10.137.0.5 fd00::1 64:ff9b::a00:1"
    lies = frozenset({OWN, client, *map(ip_address, words.split())})
    world.turn(replace(OUT, connected=frozenset({client})))
    world.names.found[NAME] = lies | {FRONT}
    world.fronts.handle()

    assert world.fronts.known == {NAME: {FRONT}}


def test_an_answer_that_names_no_server_is_told_as_that(world: World) -> None:
    world.turn()
    world.names.found[NAME] = frozenset({ip_address("192.168.1.1")})
    world.fronts.handle()

    assert world.fronts.known == {}
    assert world.fronts.problem == "the answer is no address of a server"


def test_where_no_name_is_nothing_is_ever_due() -> None:
    fronts = Fronts(lambda: 100.0, FakeNames())
    fronts.look(OUT)

    assert not fronts.due(ready=False)
    assert fronts.next_deadline() == math.inf


def test_names_are_written_in_place_as_hosts(tmp_path: Path) -> None:
    """A mount over /etc/hosts stays with the file that it was made of."""
    file = tmp_path / "x.hosts"
    write_hosts(file, {})
    inode = file.stat().st_ino
    write_hosts(file, {NAME: frozenset({FRONT, OTHER})})

    assert file.stat().st_ino == inode
    assert file.stat().st_mode & 0o777 == 0o644
    assert file.read_text().splitlines()[2:] == [
        f"198.51.100.7 {NAME}",
        f"2001:db8::7 {NAME}",
    ]

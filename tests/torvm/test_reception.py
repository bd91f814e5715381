# SPDX-License-Identifier: GPL-2.0-or-later
"""Each client's control port: who is heard, when, and how much."""

import logging
import math
import select
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address

import pytest

from rules.facts import Client, Redirect
from torvm.desk import (
    AT,
    BURST,
    INTERVAL,
    MOST,
    PATIENCE,
    PAUSE,
    SILENCE,
)
from torvm.doors import Doors
from torvm.filter import FILTERED, Known
from torvm.listeners import FIRST
from torvm.reception import Reception, with_control

A = Client("vif1.0", 11, "00:16:3e:5e:6c:01", IPv4Address("127.0.0.5"))
B = Client("vif2.0", 12, "00:16:3e:5e:6c:02", IPv4Address("127.0.0.6"))
DEADLINE = 20.0  # seconds; only a failing test waits that long
KNOWN = Known("0.4.9.11", 100, circuits=True)
HERE = IPv4Address("10.137.0.2")
NEWNYM = "SIGNAL NEWNYM"


class Caller:
    """A program in a client."""

    def __init__(self, port: int, whence: str, *, admitted: bool = True) -> None:
        place = ("127.0.0.1", port)
        self.socket = socket.create_connection(place, DEADLINE, (whence, 0))
        self.lines = self.socket.makefile("rb")
        if admitted:
            self.say("AUTHENTICATE")

    def say(self, *lines: str) -> None:
        self.socket.sendall("".join(f"{line}\r\n" for line in lines).encode())

    def hear(self) -> str:
        """Return the next line; nothing if the connection is closed."""
        try:
            return self.lines.readline().decode().strip()
        except ConnectionResetError:
            return ""

    @property
    def silent(self) -> bool:
        """Whether nothing more was said."""
        return not select.select([self.socket], [], [], 0)[0]

    def close(self) -> None:
        self.lines.close()
        self.socket.close()


@dataclass
class World:
    """A reception with sockets of the loopback interface in the place of vifs."""

    now: float = 1000.0
    known: Known = KNOWN
    speaking: tuple[Client, ...] = ()
    doors: Doors = field(default_factory=Doors)
    redirects: dict[int, Redirect] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    fails: str = ""

    def __post_init__(self) -> None:
        self.callers: list[Caller] = []
        self.reception = Reception(lambda: self.now, self.listen)
        self.serve(A, B)

    def listen(self, client: Client) -> socket.socket:
        if self.fails:
            raise OSError(98, self.fails)
        made = socket.create_server(("127.0.0.1", 0))
        made.setblocking(False)  # noqa: FBT003
        self.ports[client.vif] = made.getsockname()[1]
        return made

    def serve(self, *clients: Client) -> None:
        self.reception.serve(clients)
        self.doors = self.doors.follow(clients, frozenset({HERE}), socks=True)
        self.in_force()

    def in_force(self) -> None:
        """Have the ports that clients hold be those that the kernel knows."""
        held = self.doors.ports.held.items()
        self.redirects = {c.index: Redirect(port, port) for c, port in held}

    def call(self, client: Client = A, *, admitted: bool = True) -> Caller:
        port = self.ports[client.vif]
        made = Caller(port, str(client.ip), admitted=admitted)
        self.callers.append(made)
        if admitted:
            self.turn()
            assert made.hear() == "250 OK"
        return made

    def turn(self) -> bool:
        """Wait until there is something to handle, and handle it all."""
        assert select.select([self.reception], [], [], DEADLINE)[0]
        wants = self.pass_by()
        while select.select([self.reception], [], [], 0)[0]:
            wants = self.pass_by()
        return wants

    def pass_by(self) -> bool:
        return self.reception.handle(self.known, self.speaking)

    def close(self) -> None:
        self.reception.serve(())
        for caller in self.callers:
            caller.close()

    def follow(self) -> None:
        self.doors = self.reception.move(self.doors, self.redirects)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def test_a_client_is_answered(world: World) -> None:
    caller = world.call()
    caller.say("GETINFO status/circuit-established")
    world.turn()

    assert caller.hear() == "250-status/circuit-established=1"
    assert caller.hear() == "250 OK"


def test_socks_is_where_the_client_reaches_it(world: World) -> None:
    world.speaking = (B,)
    said = []
    for client in (A, B):
        caller = world.call(client)
        caller.say("GETINFO net/listeners/socks")
        world.turn()
        said.append(caller.hear())

    # The address that it called, and the port of SOCKS as it is known there.
    assert said == [
        "250-net/listeners/socks=",
        '250-net/listeners/socks="127.0.0.1:9050"',
    ]


def test_nobody_listens_for_who_is_not_served(world: World) -> None:
    caller = world.call()
    world.serve(B)

    assert caller.hear() == ""
    with pytest.raises(ConnectionRefusedError):
        world.call(A)
    world.call(B)


def test_another_identity_is_one_of_the_client_alone(world: World) -> None:
    """It is told when its flows end at other ports, and not before."""
    one, two = world.call(A), world.call(B)
    one.say(NEWNYM)
    assert world.turn()
    world.follow()

    assert world.doors.ports.held == {A: FIRST + 4, B: FIRST + 2}
    assert one.silent
    world.in_force()
    world.follow()
    assert one.hear() == "250 OK"
    assert two.silent


def test_what_is_said_meanwhile_is_answered_then(world: World) -> None:
    caller = world.call()
    caller.say(NEWNYM, "GETINFO version")
    world.turn()
    world.follow()
    world.in_force()
    world.follow()
    assert caller.hear() == "250 OK"
    assert world.reception.next_deadline() <= world.now
    world.pass_by()

    assert caller.hear().startswith("250-version")
    assert world.reception.next_deadline() > world.now


def test_without_flows_another_identity_is_there_at_once(world: World) -> None:
    """tor is not there, or carries nobody."""
    world.redirects = {}
    caller = world.call()
    caller.say(NEWNYM)
    world.turn()
    world.follow()

    assert caller.hear() == "250 OK"
    assert world.doors.ports.held[A] != FIRST


def test_one_identity_follows_another_after_a_while(world: World) -> None:
    """Who asks sooner waits, as often as it asks; the other client does not."""
    one, again, two = world.call(A), world.call(A), world.call(B)
    for caller in (one, again):
        caller.say(NEWNYM)
        world.turn()
    world.follow()
    world.in_force()
    world.follow()
    assert (one.hear(), again.hear()) == ("250 OK", "250 OK")
    moved = world.doors.ports.held[A]
    one.say(NEWNYM)
    assert not world.turn()
    two.say(NEWNYM)
    assert world.turn()
    world.follow()

    assert world.doors.ports.held[A] == moved
    assert world.doors.ports.held[B] != FIRST + 2
    assert world.reception.next_deadline() == world.now + INTERVAL
    world.now += INTERVAL
    assert world.pass_by()
    world.follow()
    assert world.doors.ports.held[A] != moved


def test_who_asked_may_be_gone_when_it_is_there(world: World) -> None:
    caller = world.call()
    caller.say(NEWNYM)
    world.turn()
    caller.socket.close()
    caller.lines.close()
    world.follow()
    world.in_force()
    world.follow()

    assert world.doors.ports.held[A] != FIRST
    assert world.call().silent


def test_a_client_has_so_many_connections(world: World) -> None:
    """One more is in the place of the one that was silent for longest."""
    callers = [world.call() for _ in range(MOST)]
    world.now += 1
    callers[0].say("GETINFO version")
    world.turn()
    other = world.call(B)
    more = world.call()

    assert callers[0].hear().startswith("250-version")
    assert callers[1].hear() == ""
    assert all(caller.silent for caller in (*callers[2:], more, other))


@pytest.mark.parametrize(("admitted", "patience"), [(False, PATIENCE), (True, SILENCE)])
def test_who_says_nothing_is_left(
    world: World, patience: float, *, admitted: bool
) -> None:
    caller = world.call(admitted=admitted)
    if not admitted:
        world.turn()
    assert world.reception.next_deadline() == world.now + patience
    world.now += patience - 1
    world.pass_by()
    assert caller.silent
    world.now += 1
    world.pass_by()

    assert caller.hear() == ""
    assert world.reception.next_deadline() == math.inf


def test_a_flood_is_answered_a_little_at_a_time(world: World) -> None:
    """And the other client is answered meanwhile."""
    one, two = world.call(A), world.call(B)
    one.say(*["GETINFO circuit-status"] * 400)
    world.turn()
    refused = int(world.reception.report()["control-refused"])

    assert refused <= BURST
    assert not select.select([world.reception], [], [], 0)[0]
    assert world.reception.next_deadline() == world.now + PAUSE
    two.say("GETINFO version")
    world.turn()
    assert two.hear().startswith("250-version")
    for _ in range(100):
        world.now += PAUSE
        world.pass_by()
    assert [one.hear() for _ in range(400)] == [FILTERED] * 400


def test_connections_without_end_are_taken_a_few_at_a_time(world: World) -> None:
    for _ in range(300):
        with socket.socket() as made:
            made.setblocking(False)  # noqa: FBT003
            made.bind((str(A.ip), 0))
            made.connect_ex(("127.0.0.1", world.ports[A.vif]))
        world.pass_by()

    assert world.reception.next_deadline() == world.now + PAUSE
    assert world.call(B).silent


def test_a_daemon_of_this_domain_is_no_client(world: World) -> None:
    """It gets to the socket of a vif by binding to that vif too (socket(7))."""
    daemon = Caller(world.ports[A.vif], "127.0.0.1", admitted=False)
    world.callers.append(daemon)
    world.turn()

    assert daemon.hear() == ""
    assert world.call(A).silent


def test_who_takes_no_answer_is_left(world: World) -> None:
    """First nothing more is taken of it, and the others do not wait."""
    one, two = world.call(A), world.call(B)
    one.socket.setblocking(False)  # noqa: FBT003
    question = b"GETINFO status/bootstrap-phase version\r\n" * 20

    def ask_on() -> None:
        while world.now < SILENCE:
            with suppress(BlockingIOError):
                one.socket.send(question)
            world.now += PAUSE
            world.pass_by()

    with pytest.raises(ConnectionError):
        ask_on()
    two.say("GETINFO version")
    world.turn()

    assert two.hear().startswith("250-version")


def test_what_is_refused_is_counted_and_seldom_logged(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    caller = world.call()
    for _ in range(12):
        caller.say("GETINFO address")
        world.turn()
        assert caller.hear() == FILTERED
        world.now += PAUSE

    assert world.reception.report() == {"control-refused": "12"}
    assert caplog.messages == [
        f"vif1.0: {number} commands at its control port refused" for number in (1, 10)
    ]


def test_without_a_socket_the_others_are_answered(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.fails = "Address already in use"
    world.serve(B)
    for _ in range(3):
        world.serve(A, B)

    assert caplog.messages == ["vif1.0: no control port: Address already in use"]
    world.call(B)
    world.fails = ""
    world.serve(A, B)
    world.call(A)


def test_the_port_of_the_agent_is_none_of_tors() -> None:
    """Nor one that Linux lends; and one more than nothing is there without tor."""
    found = with_control({A.index: Redirect(FIRST, FIRST)}, [A.index, B.index])

    assert found == {
        A.index: Redirect(FIRST, FIRST, 0, AT),
        B.index: Redirect(0, 0, 0, AT),
    }
    assert AT < FIRST

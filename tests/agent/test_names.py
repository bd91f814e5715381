# SPDX-License-Identifier: GPL-2.0-or-later
"""Names are asked again before they expire, and what was good outlives failures.

The server is played by the test itself, the clock by `Clock`: nothing waits.
"""

import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from agent import names as timing
from agent import record as record_of
from agent.answer import Found
from agent.names import Names
from agent.record import Record
from rules.model import Address

ONE, TWO = IPv4Address("127.0.0.1"), IPv4Address("127.0.0.2")
DEADLINE = 20.0  # seconds; only a failing test waits that long


@dataclass
class Clock:
    """``passes``: how long it takes from one look to the next."""

    now: float = 1000.0
    passes: float = 0.0

    def __call__(self) -> float:
        self.now += self.passes
        return self.now


@dataclass(frozen=True)
class Asked:
    """A question as the server got it."""

    message: dns.message.Message
    come_from: tuple[str, int]

    @property
    def name(self) -> str:
        return self.message.question[0].name.to_text(omit_final_dot=True)

    @property
    def kind(self) -> str:
        return dns.rdatatype.to_text(self.message.question[0].rdtype)

    def reply(self, *addresses: str, ttl: int = 300, rcode: int = 0) -> bytes:
        message = dns.message.make_response(self.message)
        message.set_rcode(rcode)
        if addresses:
            owner = self.message.question[0].name
            records = dns.rrset.from_text_list(owner, ttl, "IN", self.kind, addresses)
            message.answer.append(records)
        return message.to_wire(max_size=65535)


class Server:
    """A resolver on a loopback address, without a mind of its own."""

    def __init__(self, address: Address, port: int = 0) -> None:
        # First that of TCP: connections that ended hold their ports for a minute.
        self.tcp = socket.create_server((str(address), port))
        self.port = self.tcp.getsockname()[1]
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind((str(address), self.port))
        for each in (self.udp, self.tcp):
            each.settimeout(DEADLINE)

    def asked(self) -> Asked:
        wire, come_from = self.udp.recvfrom(65535)
        return Asked(dns.message.from_wire(wire), come_from)

    def is_idle(self) -> bool:
        return select.select([self.udp], [], [], 0) == ([], [], [])

    def tell(self, to: Asked, wire: bytes) -> None:
        self.udp.sendto(wire, to.come_from)

    def close(self) -> None:
        self.udp.close()
        self.tcp.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(ONE)
    yield server
    server.close()


@pytest.fixture
def names(server: Server, clock: Clock) -> Iterator[Names]:
    names = Names((ONE,), port=server.port, clock=clock)
    yield names
    names.close()


def settle(names: Names) -> bool:
    """Let what was sent arrive, and be handled."""
    assert select.select([names], [], [], DEADLINE)[0]
    return names.handle()


def both(server: Server) -> dict[str, Asked]:
    """The two questions for one name, by type."""
    asked = (server.asked(), server.asked())
    return {each.kind: each for each in asked}


def known(names: Names, name: str = "a.example") -> list[str]:
    return sorted(map(str, names.answers()[name]))


def learn(names: Names, server: Server, *v4: str, ttl: int = 300) -> None:
    """Make a.example known, without an IPv6 address."""
    names.want(frozenset({"a.example"}))
    names.handle()
    asked = both(server)
    server.tell(asked["A"], asked["A"].reply(*v4, ttl=ttl))
    settle(names)
    server.tell(asked["AAAA"], asked["AAAA"].reply())
    settle(names)


def test_the_families_do_not_wait_for_each_other(names: Names, server: Server) -> None:
    names.want(frozenset({"a.example"}))
    assert not names.handle()
    asked = both(server)
    assert known(names) == []

    server.tell(asked["AAAA"], asked["AAAA"].reply("2001:db8::1"))
    assert settle(names)
    assert known(names) == ["2001:db8::1"]
    server.tell(asked["A"], asked["A"].reply("192.0.2.1", "192.0.2.2"))
    assert settle(names)

    assert known(names) == ["192.0.2.1", "192.0.2.2", "2001:db8::1"]
    assert names.problems() == {}


def test_a_name_is_asked_again_when_it_expires(
    names: Names, server: Server, clock: Clock
) -> None:
    learn(names, server, "192.0.2.1", ttl=40)
    clock.now += 39
    names.handle()
    assert server.is_idle()
    assert names.next_deadline() == clock.now + 1

    clock.now += 1
    names.handle()
    again = server.asked()
    server.tell(again, again.reply("192.0.2.1", ttl=40))

    assert not settle(names)  # asked, but nothing changed
    assert known(names) == ["192.0.2.1"]


def test_what_is_no_longer_wanted_is_forgotten(names: Names, server: Server) -> None:
    learn(names, server, "192.0.2.1")

    names.want(frozenset())

    assert names.answers() == {}
    assert names.next_deadline() == float("inf")


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED])
def test_a_failing_server_takes_nothing_away(
    names: Names, server: Server, clock: Clock, rcode: int
) -> None:
    learn(names, server, "192.0.2.1", ttl=40)
    clock.now += 40
    names.handle()
    asked = server.asked()

    server.tell(asked, asked.reply(rcode=rcode))
    settle(names)

    assert known(names) == ["192.0.2.1"]
    assert names.problems() == {"a.example": dns.rcode.to_text(rcode)}


def test_a_silent_server_takes_nothing_away_and_gets_a_pause(
    names: Names, server: Server, clock: Clock
) -> None:
    learn(names, server, "192.0.2.1", ttl=40)
    clock.now += 40
    names.handle()

    while not names.problems():  # it is asked again before it counts as silent
        clock.now = names.next_deadline()
        names.handle()

    assert known(names) == ["192.0.2.1"]
    assert names.problems() == {"a.example": "no answer in time"}
    assert names.next_deadline() == clock.now + record_of.FIRST_BACKOFF


def test_no_such_name_empties_it_at_once(
    names: Names, server: Server, clock: Clock
) -> None:
    learn(names, server, "192.0.2.1", ttl=40)
    clock.now += 40
    names.handle()
    asked = server.asked()

    server.tell(asked, asked.reply(rcode=dns.rcode.NXDOMAIN))

    assert settle(names)
    assert known(names) == []


def test_only_the_right_reply_counts(names: Names, server: Server) -> None:
    """Wrong id, wrong question, no DNS, too long, from elsewhere: all ignored."""
    names.want(frozenset({"a.example"}))
    names.handle()
    asked = both(server)["A"]
    good, evil = asked.reply("192.0.2.1"), asked.reply("192.0.2.66")
    stranger = Server(TWO)
    stranger.tell(asked, evil)
    stranger.close()
    server.tell(asked, bytes([evil[0] ^ 1]) + evil[1:])
    server.tell(asked, evil.replace(b"example", b"exemple"))
    server.tell(asked, b"")
    server.tell(asked, bytes(range(256)) * 200)
    settle(names)
    assert known(names) == []

    server.tell(asked, good)
    settle(names)

    assert known(names) == ["192.0.2.1"]


def test_a_flood_of_wrong_replies_does_not_hide_the_right_one(
    names: Names, server: Server
) -> None:
    names.want(frozenset({"a.example"}))
    names.handle()
    asked = both(server)["A"]
    for _ in range(3 * timing.MAX_REPLIES):
        server.tell(asked, b"junk")
    server.tell(asked, asked.reply("192.0.2.1"))

    handled = 1
    while not settle(names):
        handled += 1

    assert known(names) == ["192.0.2.1"]
    assert handled > 1


def test_every_question_has_its_own_port_and_id(names: Names, server: Server) -> None:
    names.want(frozenset(f"{number}.example" for number in range(20)))

    names.handle()
    asked = [server.asked() for _ in range(40)]

    assert len({each.come_from for each in asked}) == 40
    assert len({each.message.id for each in asked}) > 30


def test_a_cut_reply_is_asked_for_over_tcp(names: Names, server: Server) -> None:
    many = [f"192.0.2.{number}" for number in range(1, 201)]
    names.want(frozenset({"a.example"}))
    names.handle()
    asked = both(server)["A"]
    whole = asked.reply(*many)
    assert len(whole) > 512

    server.tell(asked, whole[:2] + bytes([whole[2] | 2]) + whole[3:512])
    settle(names)
    settle(names)  # connected: the question goes out
    connection, _ = server.tcp.accept()
    with connection:
        connection.settimeout(DEADLINE)
        assert connection.recv(2) == len(asked.message.to_wire()).to_bytes(2, "big")
        assert dns.message.from_wire(connection.recv(512)) == asked.message
        framed = len(whole).to_bytes(2, "big") + whole
        connection.sendall(framed[:1])
        settle(names)
        connection.sendall(framed[1:700])
        settle(names)
        assert known(names) == []
        connection.sendall(framed[700:])
        while not settle(names):
            pass

    assert known(names) == sorted(many)


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff\xffjunk", id="half of it"),
        pytest.param(b"\x00\x00", id="an empty message"),
        pytest.param(b"\x00\x04junk", id="another message"),
    ],
)
def test_a_server_that_breaks_off_over_tcp_has_failed(
    names: Names, server: Server, said: bytes
) -> None:
    names.want(frozenset({"a.example"}))
    names.handle()
    asked = both(server)["A"]
    whole = asked.reply("192.0.2.1")

    server.tell(asked, whole[:2] + bytes([whole[2] | 2]) + whole[3:])
    settle(names)
    settle(names)
    connection, _ = server.tcp.accept()
    connection.sendall(said)
    connection.close()
    while not names.problems():
        settle(names)

    assert known(names) == []


def test_servers_take_turns_until_one_answers(server: Server, clock: Clock) -> None:
    second = Server(TWO, server.port)
    names = Names((ONE, TWO), port=server.port, clock=clock)
    names.want(frozenset({"a.example"}))
    names.handle()
    asked = both(server)

    server.tell(asked["A"], asked["A"].reply(rcode=dns.rcode.SERVFAIL))
    settle(names)
    asked_second = second.asked()
    second.tell(asked_second, asked_second.reply("192.0.2.1"))
    settle(names)

    assert asked_second.kind == "A"
    assert known(names) == ["192.0.2.1"]
    names.close()
    second.close()


def test_other_servers_are_asked_everything_at_once(
    names: Names, server: Server
) -> None:
    learn(names, server, "192.0.2.1")
    second = Server(TWO, server.port)

    names.use((ONE,))
    names.handle()
    assert server.is_idle()
    names.use((TWO,))
    names.handle()
    asked = both(second)
    assert known(names) == ["192.0.2.1"]
    second.tell(asked["A"], asked["A"].reply("192.0.2.2"))
    settle(names)

    assert known(names) == ["192.0.2.1", "192.0.2.2"]  # the old one has its grace
    second.close()


def test_without_servers_nobody_waits_for_an_answer(clock: Clock) -> None:
    names = Names(clock=clock)
    names.want(frozenset({"a.example"}))
    assert names.waiting() == 0

    names.use((ONE,))
    assert names.waiting() == 2  # one question for each family
    names.close()


def test_without_servers_nothing_is_due(clock: Clock) -> None:
    names = Names(clock=clock)
    names.want(frozenset({"a.example"}))

    assert not names.handle()
    assert names.next_deadline() == float("inf")
    assert names.answers() == {"a.example": frozenset()}
    names.close()


def test_a_name_that_is_none_and_a_dead_server_hurt_nobody_else(
    names: Names, server: Server
) -> None:
    names.want(frozenset({"a.example", "a" * 64, "b..c"}))
    names.handle()
    asked = both(server)
    server.tell(asked["A"], asked["A"].reply("192.0.2.1"))
    settle(names)

    assert known(names) == ["192.0.2.1"]
    assert names.problems().keys() == {"a" * 64, "b..c"}


def test_slow_names_leave_room_for_the_others(
    names: Names, server: Server, clock: Clock
) -> None:
    """More names than questions at a time, and only one has an answer."""
    slow = frozenset(f"{number}.slow" for number in range(timing.MAX_OUTSTANDING))
    names.want(slow | {"a.example"})
    seen = 0

    for _ in range(2 * len(slow)):
        names.handle()
        while not server.is_idle():
            asked = server.asked()
            seen += 1
            if asked.name == "a.example" and asked.kind == "A":
                server.tell(asked, asked.reply("192.0.2.1"))
                settle(names)
        assert seen <= timing.MAX_OUTSTANDING + 1 or clock.now > 1000
        if known(names):
            break
        clock.now = max(clock.now, names.next_deadline())

    assert known(names) == ["192.0.2.1"]


A, B = ip_address("192.0.2.1"), ip_address("192.0.2.2")


@pytest.mark.parametrize(
    ("ttl", "addresses", "due"),
    [
        pytest.param(0, {A}, record_of.MIN_TTL, id="floor"),
        pytest.param(60, {A}, 60, id="as told"),
        pytest.param(10**6, {A}, record_of.MAX_TTL, id="ceiling"),
        pytest.param(10**6, set(), record_of.MAX_EMPTY_TTL, id="ceiling of nothing"),
    ],
)
def test_an_answer_holds_between_floor_and_ceiling(
    ttl: int, addresses: set[Address], due: float
) -> None:
    assert Record().found(Found(frozenset(addresses), ttl), now=0.0).due == due


def test_an_address_that_rotates_away_has_a_grace() -> None:
    record = Record().found(Found(frozenset({A}), 10), now=0.0)

    record = record.found(Found(frozenset({B}), 10), now=10.0)
    assert record.until.keys() == {A, B}
    record = record.found(Found(frozenset({B}), 10), now=10.0 + record_of.GRACE)

    assert record.until.keys() == {B}


def test_what_was_good_is_kept_for_a_day_of_failures() -> None:
    record = Record().found(Found(frozenset({A}), 10), now=0.0)

    assert record.failed("", record_of.KEEP - 1, servers=1).until.keys() == {A}
    assert record.failed("", record_of.KEEP, servers=1).until == {}


def test_all_servers_are_tried_before_a_pause_and_pauses_are_bounded() -> None:
    record, dues = Record(), []
    for _ in range(40):
        record = record.failed("", now=0.0, servers=2)
        dues.append(record.due)

    assert dues[:6] == [0, 1, 0, 2, 0, 4]
    assert max(dues) == record_of.MAX_BACKOFF


def test_no_name_has_addresses_without_end() -> None:
    many = frozenset(IPv6Address(number) for number in range(2**64, 2**64 + 2000))

    record = Record().found(Found(many, 10), now=0.0)

    assert len(record.until) == record_of.MAX_ADDRESSES


def test_replies_that_take_long_to_read_let_others_have_their_turn(
    names: Names, server: Server, clock: Clock
) -> None:
    wanted = frozenset({"a.example", "b.example"})
    names.want(wanted)
    names.handle()
    for asked in [server.asked() for _ in range(4)]:
        addresses = ["192.0.2.1"] if asked.kind == "A" else ["2001:db8::1"]
        server.tell(asked, asked.reply(*addresses))

    clock.passes, told = 1.5 * timing.SLICE, []
    while names.waiting():
        clock.now = Clock.now  # nothing is given up meanwhile
        settle(names)
        told.append(names.waiting())

    assert told == [3, 2, 1, 0]

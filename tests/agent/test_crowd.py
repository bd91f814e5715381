# SPDX-License-Identifier: GPL-2.0-or-later
"""Who has more flows than are left for everybody else opens none for now."""

from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from itertools import pairwise

import pytest

from agent.crowd import LITTLE, PORTS, SAID, UNSEEN, Crowd, crowding, ports
from agent.ports import LiveFlow
from rules.facts import Client, Facts
from rules.model import Address
from rules.pace import BURST, SECONDS
from tests.agent.fakes import FakeConntrack

SITE, RESOLVER = ip_address("192.0.2.1"), ip_address("10.139.1.1")
MAC = "00:16:3e:5e:6c:00"
A, B, C, A6 = map(
    ip_address, ("10.137.0.5", "10.137.0.6", "10.137.0.7", "fd09:24ef:4179::a89:5")
)
CLIENTS = (
    Client("vif1.0", 11, MAC, A, A6),  # type: ignore[arg-type]
    Client("vif2.0", 12, MAC, B),  # type: ignore[arg-type]
    Client("vif3.0", 13, MAC, C),  # type: ignore[arg-type]
)
BEHIND_OTHERS = Facts(CLIENTS, configured=True)
LAST = Facts(CLIENTS)
TABLE = 1000


@dataclass
class Table:
    """A crowd that looks at a table once a second; a look takes ``slow`` seconds."""

    now: float = 0.0
    spent: float = 0.0
    slow: float = 0.0
    conntrack: FakeConntrack = field(default_factory=lambda: FakeConntrack(most=TABLE))

    def __post_init__(self) -> None:
        self.crowd = Crowd(self.conntrack, lambda: self.now, self.processor)

    def processor(self) -> float:
        self.spent += self.slow
        return self.spent

    def put(self, source: Address, flows: int, to: Address = SITE) -> None:
        """Make it that many flows of one address to another one."""
        at = source, to
        others = [flow for flow in self.conntrack.live if (flow.src, flow.dst) != at]
        own = LiveFlow(source, to, 6, 443, None, source, b"")
        self.conntrack.live = [*others, *[own] * flows]

    def look(self, facts: Facts = BEHIND_OTHERS) -> frozenset[int]:
        """Look, and return who is held."""
        self.now += 1
        self.crowd.look(facts)
        return self.crowd.held


@pytest.fixture
def table() -> Table:
    return Table()


def test_a_client_may_have_as_many_as_are_left(table: Table) -> None:
    table.put(A, TABLE // 2)
    assert table.look() == frozenset()

    table.put(A, TABLE // 2 + 1)
    assert table.look() == {11}
    assert table.crowd.trouble == f"{A}: {SAID}"


def test_what_it_has_by_both_of_its_addresses_counts(table: Table) -> None:
    table.put(A, 300)
    table.put(A6, 300)

    assert table.look() == {11}


def test_many_who_have_much_are_not_held_while_there_is_room(table: Table) -> None:
    """Nobody of three who have 240 each has more than the 280 that are left."""
    for client in (A, B, C):
        table.put(client, 240)

    assert table.look() == frozenset()


def test_the_last_gateway_holds_nobody_whom_one_before_it_does_not(
    table: Table,
) -> None:
    """What a FirewallVM lets grow to a half is for its NetVM far from too much."""
    table.put(A, 750)
    assert table.look(LAST) == frozenset()

    table.put(A, 751)
    assert table.look(LAST) == {11}


def test_a_client_without_others_can_take_from_nobody(table: Table) -> None:
    table.put(A, TABLE)

    assert table.look(replace(BEHIND_OTHERS, clients=CLIENTS[:1])) == frozenset()


LARGE = 1 << 18


@pytest.mark.parametrize(("facts", "share"), [(BEHIND_OTHERS, 1 / 2), (LAST, 3 / 4)])
def test_a_client_takes_no_more_ports_to_an_address_than_are_left(
    facts: Facts, share: float, table: Table
) -> None:
    """However large the table is: the resolver is one address for all of them."""
    table.conntrack.most = LARGE
    most = int(share * ports(LARGE))
    table.put(A, most, RESOLVER)
    table.put(B, most)
    assert table.look(facts) == frozenset()

    table.put(A, most + 1, RESOLVER)
    assert table.look(facts) == {11}
    # Until then it may have opened so many more, and others find ports all the same.
    assert most + LARGE // BURST + UNSEEN * LARGE // SECONDS < PORTS

    table.put(A, most // 2, RESOLVER)
    assert table.look(facts) == frozenset()


def test_who_has_few_flows_to_an_address_is_not_held_for_those_who_have_many(
    table: Table,
) -> None:
    table.conntrack.most = LARGE
    table.put(A, PORTS, RESOLVER)
    table.put(B, int(LITTLE * ports(LARGE)), RESOLVER)

    assert table.look() == {11}


def test_who_is_held_is_let_go_some_way_below(table: Table) -> None:
    table.put(A, 600)
    table.look()

    held = []
    for flows in (500, 429, 428):
        table.put(A, flows)
        held.append(table.look())

    assert held == [{11}, {11}, frozenset()]
    assert table.crowd.trouble == ""


def test_a_second_one_is_held_beside_the_first(table: Table) -> None:
    table.put(A, 500)
    table.put(B, 260)

    assert table.look() == {11, 12}
    assert table.crowd.trouble == f"{A}, {B}: {SAID}"


def test_who_is_gone_is_held_no_more(table: Table) -> None:
    table.put(A, 600)
    table.look()

    assert table.look(replace(BEHIND_OTHERS, clients=CLIENTS[1:])) == frozenset()


def test_flows_are_counted_only_where_somebody_may_have_too_many(table: Table) -> None:
    table.put(A, TABLE // 2)
    table.look()
    assert table.conntrack.asked == []

    table.put(A, TABLE // 2 + 1)
    table.look()
    assert len(table.conntrack.asked) == 1


def test_a_look_that_takes_long_is_not_taken_all_the_time(table: Table) -> None:
    table.put(A, 600)
    table.slow = 1
    table.look()
    table.slow = 0

    looked = []
    for _ in range(6):
        table.look()
        looked.append(len(table.conntrack.asked))

    assert looked == [1, 1, 1, 2, 3, 4]


def test_a_thousand_who_do_what_people_do_are_never_held() -> None:
    """Each has some hundred flows; the table is nine tenths full."""
    table = 1 << 18
    counts = {number: 100 + number % 300 for number in range(1000)}
    free = table - sum(counts.values())

    assert free < table // 10
    assert crowding(counts, free, frozenset()) == frozenset()


def test_however_many_open_all_that_they_can_there_is_room_left() -> None:
    """Each takes all that it may, one after the other; the next still finds some."""
    free = 1 << 14
    left = [free]
    for number in range(10):
        own = {number: 0}
        while not crowding(own, free, frozenset()):
            own[number] += 1
            free -= 1
        left.append(free)

    assert all(after > before // 3 for before, after in pairwise(left))

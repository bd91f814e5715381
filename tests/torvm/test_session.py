# SPDX-License-Identifier: GPL-2.0-or-later
"""A session tells tor what to do, hears what it says, and asks again."""

import math
from collections.abc import Mapping
from ipaddress import IPv4Address, ip_address

import pytest

from rules.facts import Client, Redirect
from rules.model import Family
from tests.torvm.fakes import FakeTor
from torvm.circuits import Answer
from torvm.doors import NAMES, Doors
from torvm.lingering import KEPT
from torvm.listeners import FIRST, Kind, Listener
from torvm.port import GoneError
from torvm.relays import Relays
from torvm.said import (
    Bootstrap,
    ByProxy,
    Circuit,
    CircuitsSeen,
    Clock,
    Consensus,
    CountriesSeen,
    Established,
    Hop,
    Live,
    Reconfigured,
    RelaysSeen,
    Stream,
)
from torvm.session import RETRY, Session

HERE = frozenset({ip_address("10.137.0.2")})
A = Client("vif1.0", 1, "00:16:3e:5e:6c:01", IPv4Address("10.137.0.5"))
B = Client("vif2.0", 2, "00:16:3e:5e:6c:02", IPv4Address("10.137.0.6"))
V4 = frozenset({Family.IPV4})
NOW = 1000.0
NOBODY: Mapping[str, int] = {}
RELAY = (ip_address("203.0.113.11"), 5000)
OTHER = (ip_address("203.0.113.12"), 5000)


def session(tor: FakeTor | None = None, *clients: Client, **words: object) -> Session:
    made = Session(tor or FakeTor(), Doors(), **words)  # type: ignore[arg-type]
    made.doors = made.doors.follow(clients or (A, B), HERE, socks=False)
    hear(made)
    return made


def hear(session: Session, now: float = NOW) -> bool:
    """Take all that tor says, and what it says to that."""
    changed = False
    while said := session.tor.handle():
        for each in said:
            changed |= session.hear(each, now)
    return changed


def let_out(
    session: Session, speaking: Mapping[str, int] = NOBODY, now: float = NOW
) -> None:
    """Lead until there is nothing more to say, as the loop does."""
    for _ in range(4):
        session.lead(V4, speaking, now)
        hear(session, now)


def tor(session: Session) -> FakeTor:
    assert isinstance(session.tor, FakeTor)
    return session.tor


def test_tor_is_let_out_and_listens_for_each_client() -> None:
    found = session()
    let_out(found)

    assert tor(found).orders == ["release IPV4", "listen 5"]
    assert found.doors.redirects == {
        1: Redirect(FIRST, FIRST),
        2: Redirect(FIRST + 2, FIRST + 2),
    }


def test_held_tor_listens_to_nobody() -> None:
    """It never did: one that has DNSPorts cannot close them (`torvm.lingering`)."""
    found = session()
    found.lead(frozenset(), {}, NOW)
    hear(found)

    assert tor(found).orders == ["hold"]
    assert found.doors.redirects == {}
    assert not found.ready


def test_circuits_of_before_it_was_held_are_no_way_out() -> None:
    found = session(FakeTor(circuits=True))
    found.lead(frozenset(), {}, NOW)
    found.lead(V4, {}, NOW)

    assert not found.ready


def test_let_out_again_it_listens() -> None:
    found = session()
    found.lead(frozenset(), {}, NOW)
    hear(found)
    let_out(found)

    assert len(found.doors.redirects) == 2


def test_one_that_listens_is_ended_instead_of_held() -> None:
    found = session(FakeTor(circuits=True))
    let_out(found)
    assert found.ready
    for _ in range(2):
        found.lead(frozenset(), {}, NOW)
    found.lead(V4, {}, NOW)

    assert tor(found).orders[2:] == ["halt"]
    assert found.doors.redirects == {}
    assert not found.ready


def test_one_that_is_found_listening_is_ended_too() -> None:
    found = session(FakeTor(held=False, listening=frozenset({NAMES})))
    found.lead(frozenset(), {}, NOW)

    assert tor(found).orders == ["halt"]


def test_what_is_as_it_must_be_is_not_told_again() -> None:
    found = session()
    let_out(found)
    before = list(tor(found).orders)
    let_out(found)

    assert tor(found).orders == before


def test_another_ip_version_of_the_uplink_is_told() -> None:
    found = session()
    let_out(found)
    found.lead(frozenset(Family), {}, NOW)

    assert tor(found).orders[-1] == "release IPV4+IPV6"


def test_a_new_identity_is_new_listeners_of_one_client() -> None:
    found = session()
    let_out(found)
    before = found.doors.redirects
    found.doors = found.doors.move(A)
    let_out(found)

    assert found.doors.redirects[2] == before[2]
    assert found.doors.redirects[1] != before[1]
    # More while it moves, then as many as before, but for the old DNSPort.
    assert tor(found).orders[-2:] == ["listen 7", "listen 6"]
    for moment, places in ((NOW + KEPT - 1, 6), (NOW + KEPT, 5)):
        let_out(found, now=moment)
        assert len(tor(found).listening) == places


def test_listeners_that_tor_refuses_are_told_again_after_a_while() -> None:
    found = session()
    tor(found).refuses = "Failed to bind one of the listener ports."
    let_out(found)
    assert found.doors.redirects == {}
    assert found.refusal == "Failed to bind one of the listener ports."
    asked = len(tor(found).orders)
    let_out(found)
    assert len(tor(found).orders) == asked
    assert not found.due(NOW + RETRY / 2)

    tor(found).refuses = ""
    assert found.due(NOW + RETRY)
    let_out(found)
    assert len(found.doors.redirects) == 2
    assert found.refusal == ""


def test_a_tor_that_has_closed_a_dnsport_is_ended() -> None:
    """Of those that it refuses as a whole it closes some, and of its file all."""
    refusing, reading = session(), session()
    for each in (refusing, reading):
        let_out(each)
    tor(refusing).refuses = "Failed to bind one of the listener ports."
    refusing.doors = refusing.doors.move(A)
    tor(reading).read_the_file_again()
    for each in (refusing, reading):
        with pytest.raises(GoneError):
            let_out(each)
        assert tor(each).orders[-1] == "halt"
        assert each.doors.redirects == {}


def test_a_port_of_tcp_that_somebody_closes_is_told_again() -> None:
    """With all else that tor may have forgotten."""
    found = session()
    let_out(found)
    found.lead(V4, {"obfs4": 4711}, NOW)
    names = {place for place in tor(found).listening if place.kind is Kind.DNS}
    tor(found).listening = frozenset(names)
    tor(found).say(Reconfigured(frozenset({"transport"})))
    assert hear(found)
    assert found.doors.redirects == {}
    assert found.again == NOW + RETRY
    found.due(NOW + RETRY)
    let_out(found, {"obfs4": 4711})

    assert len(found.doors.redirects) == 2
    assert tor(found).orders[-3:] == [
        "transports {'obfs4': 4711}",
        "release IPV4",
        "listen 5",
    ]


def test_what_a_proxy_does_is_forgotten_once_tor_is_through() -> None:
    found = session()
    tor(found).say(Bootstrap(4, "Connected to proxy"), ByProxy("does not answer"))
    assert hear(found)
    assert found.proxy == "does not answer"
    tor(found).say(Bootstrap(4, "Connected to proxy"))
    hear(found)
    assert found.proxy == "does not answer"
    tor(found).say(Bootstrap(10, "Connected to a relay"))

    assert hear(found)
    assert found.proxy == ""


def test_it_is_ready_once_there_are_circuits() -> None:
    found = session()
    let_out(found)
    assert not found.ready
    assert found.hear(Established(circuits=True), NOW)
    assert found.ready
    assert found.hear(Live(live=False), NOW)
    assert not found.ready
    found.hear(Live(live=True), NOW)
    found.hear(Established(circuits=False), NOW)

    assert not found.ready


def test_circuits_of_a_tor_that_is_held_are_no_way_out() -> None:
    held = session(FakeTor(circuits=True))

    assert not held.ready


def test_a_tor_that_is_found_again_keeps_its_circuits_but_no_port() -> None:
    """Nobody knows any more who its listeners were for."""
    old = session()
    let_out(old)
    found = session(
        FakeTor(progress=100, circuits=True, held=False, listening=tor(old).listening)
    )
    let_out(found)

    assert found.ready
    assert found.bootstrap.progress == 100
    ports = {r.tcp for r in old.doors.redirects.values()}
    assert not ports & {r.tcp for r in found.doors.redirects.values()}
    assert NAMES in tor(found).listening
    # The DNSPorts of before are there for a while: who asked may have no answer yet.
    assert len(tor(found).listening) == 7
    let_out(found, now=NOW + KEPT)
    assert len(tor(found).listening) == 5


@pytest.mark.parametrize(
    ("listening", "orders"),
    [(frozenset(), ["new guards"]), (frozenset({NAMES}), [])],
    ids=["started", "found again"],
)
def test_other_guards_are_chosen_when_tor_starts_and_only_then(
    listening: frozenset[Listener], orders: list[str]
) -> None:
    assert tor(session(FakeTor(listening=listening), forget=True)).orders == orders


def test_the_clock_is_no_trouble_once_tor_is_through() -> None:
    found = session()
    assert found.hear(Clock(7200), NOW)
    assert found.clock == Clock(7200)
    found.hear(Bootstrap(50, ""), NOW)
    assert found.clock == Clock(7200)
    found.hear(Bootstrap(100, "Done"), NOW)

    assert found.clock is None


def test_a_clock_that_jumped_is_no_trouble_once_there_are_circuits_again() -> None:
    """One that is wrong may be wrong all the same."""
    found = session()
    found.hear(Clock(None), NOW)
    found.hear(Established(circuits=False), NOW)
    assert found.clock == Clock(None)
    found.hear(Established(circuits=True), NOW)
    assert found.clock is None
    found.hear(Clock(7200), NOW)
    found.hear(Established(circuits=True), NOW)

    assert found.clock == Clock(7200)


def test_relays_that_leave_the_list_stay_until_the_next() -> None:
    found = session()
    assert found.hear(RelaysSeen(frozenset(), frozenset({RELAY})), NOW)
    assert found.relays.places == {RELAY}
    found.hear(Consensus(), NOW)
    assert tor(found).orders[-1] == "relays?"
    found.hear(RelaysSeen(frozenset(), frozenset({OTHER})), NOW)
    assert found.relays.places == {RELAY, OTHER}
    assert not found.hear(RelaysSeen(frozenset(), frozenset({OTHER})), NOW)
    found.hear(RelaysSeen(frozenset(), frozenset()), NOW)

    assert found.relays.places == {OTHER}


def test_a_private_network_has_none_of_the_public_directories() -> None:
    found = session(relays=Relays(frozenset({RELAY})))
    found.hear(RelaysSeen(frozenset({OTHER}), frozenset()), NOW)

    assert found.relays.places == {RELAY}


def test_transports_are_told_where_they_are_spoken() -> None:
    found = session()
    found.lead(frozenset(), {"obfs4": 4711}, NOW)
    found.lead(frozenset(), {"obfs4": 4711}, NOW)
    found.lead(frozenset(), {"obfs4": 4712}, NOW)

    spoken = [order for order in tor(found).orders if order.startswith("transports")]
    assert spoken == ["transports {'obfs4': 4711}", "transports {'obfs4': 4712}"]


def test_who_uses_which_circuit_is_found_out_in_two_questions() -> None:
    found = session()
    hops = (Hop("AA", "one"), Hop("BB", "two"))
    found.hear(Circuit("7", "BUILT", "7"), NOW)
    found.hear(Stream("1", "NEW", "", A.ip), NOW)
    found.hear(Stream("1", "SENTCONNECT", "7"), NOW)
    found.ask(Answer("3"))
    assert tor(found).orders[-1] == "circuits?"
    own = Circuit("8", "BUILT", "8", "", hops[:1])
    found.hear(CircuitsSeen((Circuit("7", "BUILT", "7", "", hops), own)), NOW)
    assert tor(found).orders[-1] == "countries? 2"
    assert found.answered is None
    places = {"AA": ip_address("203.0.113.11")}
    assert found.hear(CountriesSeen({"AA": "de"}, places), NOW)

    assert found.answered is not None
    assert found.answered.report(found.usage, [A, B]) == {
        "circuits/10.137.0.5/7": "de:one ??:two",
        "circuits-serial": "3",
    }


def test_addresses_are_told_to_who_asks_for_them_alone() -> None:
    hops = (Hop("AA", "one"), Hop("BB", "two"))
    found = session()
    found.hear(Circuit("7", "BUILT", "7"), NOW)
    found.hear(Stream("1", "NEW", "", A.ip), NOW)
    found.hear(Stream("1", "SENTCONNECT", "7"), NOW)
    for addresses in (False, True):
        found.ask(Answer("3", addresses=addresses))
        found.hear(CircuitsSeen((Circuit("7", "BUILT", "7", "", hops),)), NOW)
        found.hear(CountriesSeen({}, {"AA": ip_address("203.0.113.11")}), NOW)
        assert found.answered is not None
        lines = found.answered.report(found.usage, [A])["circuits/10.137.0.5/7"]
        assert ("203.0.113.11" in lines) is addresses


def test_nothing_is_due_while_tor_does_what_it_is_told() -> None:
    found = session()
    let_out(found)

    assert found.again == math.inf
    assert not found.due(NOW + 3600)

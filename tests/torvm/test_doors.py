# SPDX-License-Identifier: GPL-2.0-or-later
"""Who has which port of tor, and where flows may go meanwhile."""

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.facts import Client, Redirect
from torvm.doors import NAMES, Doors
from torvm.listeners import FIRST, LAST, Kind, Listener, Ports

HERE = frozenset({ip_address("10.137.0.2"), ip_address("fd09::2")})
HERE4 = IPv4Address("10.137.0.2")


def client(index: int, *, ip: int | None = None, v6: bool = True) -> Client:
    number = index if ip is None else ip
    return Client(
        f"vif{index}.0",
        index,
        "00:16:3e:5e:6c:00",
        IPv4Address(0x0A890000 + number),
        IPv6Address(0xFD09 << 112 | number) if v6 else None,
    )


ONE, TWO = client(1), client(2)


def follow(doors: Doors, *clients: Client) -> Doors:
    return doors.follow(clients, HERE, socks=False)


def settled(doors: Doors) -> Doors:
    """Let tor listen where it must, for as long as that changes something."""
    while doors.open != doors.wanted:
        doors = doors.opened(doors.wanted)
    return doors


def test_a_client_has_a_port_of_every_kind_in_both_versions() -> None:
    doors = Doors().follow([ONE], HERE, socks=True)

    assert doors.wanted == {
        NAMES,
        *(Listener(kind, a, FIRST) for kind in (Kind.TRANS, Kind.DNS) for a in HERE),
        *(Listener(Kind.SOCKS, a, FIRST + 1) for a in HERE),
    }


def test_socks_is_spoken_where_it_is_asked_for() -> None:
    doors = settled(Doors().follow([ONE], HERE, socks=True))

    assert doors.redirects == {1: Redirect(FIRST, FIRST, FIRST + 1)}
    assert settled(follow(doors, ONE)).redirects == {1: Redirect(FIRST, FIRST)}


def test_without_ipv6_and_socks_there_is_less_to_attack() -> None:
    doors = follow(Doors(), client(1, v6=False))

    assert doors.wanted == {
        NAMES,
        Listener(Kind.TRANS, HERE4, FIRST),
        Listener(Kind.DNS, HERE4, FIRST),
    }


def test_flows_go_nowhere_before_tor_listens() -> None:
    doors = follow(Doors(), ONE)
    assert doors.redirects == {}
    # One of four listeners is none.
    partly = doors.opened(frozenset({Listener(Kind.TRANS, HERE4, FIRST)}))
    assert partly.redirects == {}

    assert settled(doors).redirects == {1: Redirect(FIRST, FIRST)}


def test_who_comes_changes_nothing_for_who_is_there() -> None:
    doors = settled(follow(Doors(), ONE))
    more = follow(doors, ONE, TWO)

    assert more.redirects == doors.redirects
    assert more.wanted > doors.wanted
    found = settled(more).redirects
    assert found == {1: Redirect(FIRST, FIRST), 2: Redirect(FIRST + 2, FIRST + 2)}


def test_a_disposable_with_the_address_of_another_gets_another_port() -> None:
    """E28: the address alone would give it the circuits of the one before."""
    doors = settled(follow(settled(follow(Doors(), ONE))))
    again = settled(follow(doors, client(3, ip=1)))

    assert again.redirects == {3: Redirect(FIRST + 2, FIRST + 2)}


def test_a_move_refuses_nobody_and_moves_nobody_else() -> None:
    """The old port stays until flows go to the new one."""
    doors = settled(follow(Doors(), ONE, TWO))
    moving = doors.move(ONE)
    assert moving.moving == frozenset(ONE.addresses)
    assert moving.redirects == doors.redirects
    assert moving.wanted > doors.wanted
    moved = moving.opened(moving.wanted)
    assert moved.redirects[2] == doors.redirects[2]
    assert moved.redirects[1] not in doors.redirects.values()

    # Nobody's flows go to the old one any more.
    assert Listener(Kind.TRANS, HERE4, doors.redirects[1].tcp) not in moved.wanted
    assert moved.moving == frozenset()


def test_a_listener_that_is_gone_gets_no_flows() -> None:
    doors = settled(follow(Doors(), ONE, TWO))

    assert doors.opened(frozenset()).redirects == {}


def test_of_a_tor_that_was_there_before_no_port_is_used_again() -> None:
    """Who they were for, nobody knows any more."""
    old = settled(follow(Doors(), ONE, TWO))
    found = follow(Doors(), TWO).begin(old.open)
    assert found.redirects == {}

    assert settled(found).redirects == {2: Redirect(FIRST + 4, FIRST + 4)}


@given(
    st.sets(st.integers(FIRST, LAST), max_size=6),
    st.lists(st.booleans(), max_size=12),
)
def test_what_another_agent_gave_is_not_given_by_this_one_when_ports_begin_again(
    old: set[int], moves: list[bool]
) -> None:
    """They may be somebody else's, whose circuits a client would get with them."""
    last = frozenset({*old, LAST - 1, FIRST, FIRST + 3})
    places = frozenset(Listener(Kind.TRANS, HERE4, port) for port in last)
    doors = follow(Doors(), ONE, TWO).begin(places)
    for first in moves:
        doors = doors.move(ONE if first else TWO)
    given_out = {p + more for p in doors.ports.held.values() for more in (0, 1)}

    # Both ports of both clients, none of which is another's.
    assert len(given_out) == 4
    assert not given_out & last


def test_a_move_of_nobody_is_an_error() -> None:
    with pytest.raises(KeyError):
        Ports().move(ONE)


@given(st.lists(st.sampled_from("abcdefgh+"), max_size=60))
def test_no_port_is_ever_given_twice(words: list[str]) -> None:
    """Letters come and go in turn; + moves all that are there."""
    ports, there, given_out = Ports(), {}, []
    for serial, word in enumerate(words, 1):
        if word == "+":
            for each in list(there.values()):
                ports = ports.move(each)
        elif word in there:
            del there[word]
        else:
            there[word] = client(serial, ip=ord(word))
        ports = ports.follow(there.values())
        given_out.append(dict(ports.held))
        assert ports.held.keys() == set(there.values())
    owners: dict[int, set[Client]] = {}
    for held in given_out:
        for each, port in held.items():
            owners.setdefault(port, set()).add(each)
    assert all(len(clients) == 1 for clients in owners.values())
    assert all(FIRST <= port < LAST for port in owners)


def test_when_all_ports_were_given_it_begins_again_with_those_that_are_free() -> None:
    """tor itself never gives two listeners of its life one session."""
    ports = replace(Ports(), following=LAST - 1).follow([ONE, TWO])

    assert set(ports.held.values()) == {LAST - 1, FIRST}
    assert set(ports.move(TWO).held.values()) == {LAST - 1, FIRST + 2}


@given(st.permutations([1, 2, 3, 4, 5]), st.sets(st.integers(1, 5)))
def test_flows_only_ever_go_where_tor_listens(
    order: list[int], open_to: Iterable[int]
) -> None:
    doors = follow(Doors(), *map(client, order))
    ports = {doors.ports.held[client(number)] for number in open_to}
    places = frozenset(p for p in doors.wanted if p.port in ports)
    found = doors.opened(places).redirects

    assert found.keys() == set(open_to)
    assert {redirect.tcp for redirect in found.values()} == ports

# SPDX-License-Identifier: GPL-2.0-or-later
"""No two clients ever share a circuit of Tor; tor itself is asked.

Classes: T12 X8 X9 X10 X11.  Circuits of one conflux set count as one.
"""

import os
import re
import select
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from ipaddress import ip_address

import pytest

from controller import namespaces
from tests.e2e.machine import stilled, until
from tests.tor.chain import CIRCUITS, OTHER, WEB, WEB6, Streams, TorChain
from tests.tor.test_tor_daily_use import row
from tests.torvm import garbled

pytestmark = [
    pytest.mark.kernel,
    # stem's threads; the agent does not use them.
    pytest.mark.filterwarnings("ignore:setDaemon:DeprecationWarning"),
]

TRIES = 50
ASKED = b"secret"
ROUNDS = 5
SITES = (WEB, OTHER, WEB6)
TO_TCP, SHARED = "ip qubes to_tcp", 30001
ELEMENT = re.compile(r"[0-9]+ \. [0-9.]+ : [0-9]+|\"vif[0-9.]+\" \. [0-9.]+ : [0-9]+")


def both(
    tor: TorChain, streams: Streams, tries: int, sites: Sequence[str] = SITES
) -> tuple[set[str], set[str]]:
    """Have both clients fetch pages; return the circuits of each."""
    one: set[str] = set()
    two: set[str] = set()
    for turn in range(tries):
        assert tor.through("anon", sites[turn % len(sites)]) in tor.exits
        assert tor.through("anon2", sites[turn % len(sites)]) in tor.exits
        one |= streams.of("anon")
        two |= streams.of("anon2")
    return one, two


def test_two_clients_never_share_a_circuit(tor: TorChain) -> None:
    """In fifty tries each; the control is the next test."""
    with tor.watched() as streams:
        one, two = both(tor, streams, TRIES)

    assert one
    assert two
    assert not one & two
    # Circuits are used again, or nothing would be shown.
    assert len(one) < TRIES
    assert len(two) < TRIES


def test_the_judge_sees_a_circuit_that_is_shared(tor: TorChain) -> None:
    """Both are sent to one listener that does not tell them apart."""
    with tor.watched() as streams, tor.stopped("torvm"):
        shared = f"{tor.ip('sys-tor')[0]}:{SHARED}"
        streams.controller.set_conf("TransPort", f"{shared} NoIsolateClientAddr")
        listing = tor.run("sys-tor", "nft", "list", "map", *TO_TCP.split())
        for old in ELEMENT.findall(listing):
            new = f"{old.rpartition(':')[0]}: {SHARED}"
            change = (
                f"delete element {TO_TCP} {{ {old} }}; add element {TO_TCP} {{ {new} }}"
            )
            tor.run("sys-tor", "nft", change)
        one, two = both(tor, streams, 3, sites=(WEB,))

    assert one & two


def moves_alone(tor: TorChain, streams: Streams, renew: Callable[[], object]) -> bool:
    """Give ``anon`` other circuits; return whether ``anon2`` kept one.

    On a busy machine a circuit may end by itself, and is then another one too: who
    sees none kept gives it `ROUNDS` of this.
    """
    one, two = both(tor, streams, 3)
    renew()
    after_one, after_two = both(tor, streams, 3)

    assert not one & after_one
    assert not after_one & after_two
    return bool(two & after_two)


def test_a_new_identity_moves_that_client_alone(tor: TorChain) -> None:
    def renew() -> None:
        tor.cli("tor", "new-identity", "anon")

    with tor.watched() as streams:
        assert any(moves_alone(tor, streams, renew) for _ in range(ROUNDS))


def test_newnym_would_move_everybody(tor: TorChain) -> None:
    """X11: which is why it is not what a new identity is."""
    with tor.watched() as streams:
        _, two = both(tor, streams, 2)
        streams.controller.signal("NEWNYM")
        _, after = both(tor, streams, 2)

    assert not two & after


def test_an_address_that_comes_back_has_none_of_the_old_circuits(
    tor: TorChain,
) -> None:
    """X10: a disposable gets the address of one before it, E28 its circuits."""

    def renew() -> None:
        for netvm in ("none", "sys-tor"):
            tor.cli("prefs", "anon", "netvm", netvm)

    with tor.watched() as streams:
        assert any(moves_alone(tor, streams, renew) for _ in range(ROUNDS))


def test_what_one_client_asks_for_is_no_word_of_tor_about_another(
    tor: TorChain,
) -> None:
    """tor repeats a name with its line breaks; nothing that the agent asks is there.

    The connection of the other goes on, and tor is told things, and answers.  On a
    busy machine its circuit may end by itself, so there are some rounds.
    """
    assert any(_goes_on_beside(tor) for _ in range(ROUNDS))
    # The control: tor did say them.
    assert until(lambda: _missed(tor) >= 1, within=CIRCUITS)


def _goes_on_beside(tor: TorChain) -> bool:
    """Have ``anon2`` ask for such names; return whether ``anon`` is still connected."""
    with namespaces.inside(tor.net("anon")):
        made = socket.create_connection((WEB, 80), timeout=CIRCUITS)
    with made:
        for name in garbled.NAMES.values():
            garbled.ask(tor.net("anon2"), (ip_address("10.139.1.1"), 53), name)
        tor.cli("tor", "new-identity", "anon2")
        assert tor.through("anon2") in tor.exits
        with suppress(OSError):
            made.sendall(b"GET /ip HTTP/1.0\r\nHost: www.example.com\r\n\r\n")
            answer = made.makefile("rb").read()
            return answer.rpartition(b"\r\n\r\n")[2].decode().strip() in tor.exits
    return False


def _missed(tor: TorChain) -> int:
    """Return how often the agent believed nothing of streams any more."""
    report = row(tor)["report"]
    assert isinstance(report, dict)
    return int(report.get("streams-missed", 0))


def test_what_one_client_asked_is_not_told_to_who_comes_after_its_new_identity(
    tor: TorChain,
) -> None:
    """Its DNSPort stays until it has an answer (`torvm.lingering`).

    The control is in tests/torvm/test_control_and_tor.py: closed at once, its socket's
    number is another connection's, and so is the answer.
    """
    virtual = ip_address("10.139.1.1")
    with ExitStack() as stack, tor.watched() as streams:
        tor.through("anon2")
        daemon = tor.process("/usr/bin/tor")
        for relay in namespaces.processes(tor.tors.net):
            stack.enter_context(stilled(relay))
        garbled.ask(tor.net("anon"), (virtual, 53), ASKED)
        until(lambda: pending(streams))
        tor.cli("tor", "new-identity", "anon")
        others = []
        with namespaces.inside(tor.net("anon2")):
            for _ in range(20):
                made = socket.create_connection((WEB, 80), timeout=CIRCUITS)
                others.append(stack.enter_context(closing(made)))
        for line in pending(streams):
            streams.controller.close_stream(line.split()[0])
        until(lambda: not pending(streams))
        # tor has served everybody in between, and is the same one.
        for relay in namespaces.processes(tor.tors.net):
            os.kill(relay, signal.SIGCONT)
        assert tor.through("anon2") in tor.exits
        assert tor.process("/usr/bin/tor") == daemon
        told = select.select(others, [], [], 0)[0]
        assert [each.recv(512) for each in told] == [b""] * len(told)


def pending(streams: Streams) -> list[str]:
    """Return what tor says of questions for that name: a number, and more."""
    said = streams.controller.get_info("stream-status").splitlines()
    return [line for line in said if ASKED.decode() in line]


def test_names_are_asked_on_circuits_of_their_own(tor: TorChain) -> None:
    """Each client has a DNSPort, too."""
    with tor.watched() as streams:
        found = {}
        for client in ("anon", "anon2"):
            assert WEB in tor.run(
                client, "dig", "+short", "+tries=5", "@10.139.1.1", "www.example.com"
            )
            found[client] = streams.of(client)

    assert found["anon"]
    assert not found["anon"] & found["anon2"]


def test_the_command_tells_who_uses_which_circuit(tor: TorChain) -> None:
    """The countries of a private network are not known, its relays' names are."""
    with tor.watched() as streams:
        tor.through("anon")
        relays = streams.controller.get_network_statuses()
        names = {relay.nickname for relay in relays}
    said = tor.ask("tor", action="circuits", domain="anon", addresses=False)
    with_addresses = tor.ask("tor", action="circuits", domain=None, addresses=True)
    assert isinstance(said.data, dict)
    assert isinstance(with_addresses.data, dict)
    rows, more = said.data["circuits"], with_addresses.data["circuits"]

    assert rows
    assert {row["domain"] for row in rows} == {"anon"}
    shown = {hop.partition(":")[2] for row in rows for hop in row["relays"].split()}
    assert shown <= names
    assert "203.0.113." not in str(rows)
    assert "203.0.113." in str(more)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Addresses for names of onion services are of one pool, which no client uses up.

tor keeps each that it has given and says which.  What is shown is a flood for some
moments; how long it takes until tor is too large follows from the number in
`rules.redirects`.
"""

import socket
import subprocess
from base64 import b32encode
from contextlib import suppress
from itertools import count, islice
from pathlib import Path
from time import monotonic

import dns.message
import pytest

from controller import namespaces
from rules.redirects import NAMES, NAMES_AT_ONCE
from tests.controller.test_datagrams import UDP_SEGMENT
from tests.tor.chain import CIRCUITS, Streams, TorChain

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.filterwarnings("ignore:setDaemon:DeprecationWarning"),
]

ROUND = 100  # questions before tor is asked what it has
CHAIN = "ip qubes into-daemon"
OPEN = f"flush chain {CHAIN}; add rule {CHAIN} ct status dnat accept"


class Flood:
    """Questions of ``anon`` for names that nobody has asked for."""

    def __init__(self, tor: TorChain, streams: Streams) -> None:
        with namespaces.inside(tor.net("anon")):
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect(("10.139.1.1", 53))
        self._socket.settimeout(0)
        self._names = count(1)
        self._streams = streams
        self.began, self._before = monotonic(), self._given()

    def ask(self) -> None:
        """Ask for some names, and hear what is answered by now."""
        for number in islice(self._names, ROUND):
            label = b32encode(number.to_bytes(35, "big"))[-56:].decode().lower()
            question = dns.message.make_query(f"{label}.onion", "A")
            self._socket.send(question.to_wire())
            with suppress(BlockingIOError):
                while True:
                    self._socket.recv(512)

    @property
    def given(self) -> int:
        """How many names have got an address since the beginning."""
        return self._given() - self._before

    @property
    def share(self) -> int:
        """How many may have, after this time."""
        return NAMES_AT_ONCE + NAMES * (int(monotonic() - self.began) + 1)

    def close(self) -> None:
        self._socket.close()

    def _given(self) -> int:
        held = self._streams.controller.get_info("address-mappings/all")
        return str(held).count(".onion")


def test_questions_of_a_byte_that_are_sent_as_one_do_not_end_tor(tor: TorChain) -> None:
    """Its server of names falls by a single one (`rules.redirects.SHORTEST`)."""
    before = tor.process("/usr/bin/tor")
    with (
        namespaces.inside(tor.net("anon")),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as many,
    ):
        many.connect(("10.139.1.1", 53))
        many.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1)
        many.send(b"x" * ROUND)
    answer = tor.run(
        *("anon2", "dig", "+short", "+tries=3", "+time=10"),
        *("@10.139.1.1", "A", tor.network.onion),
    )

    assert answer.startswith("10.")
    assert tor.process("/usr/bin/tor") == before


def test_a_client_gets_no_more_than_its_share_of_names(tor: TorChain) -> None:
    """And another one has an answer at once, whatever is asked meanwhile."""
    with tor.watched() as streams:
        flood = Flood(tor, streams)
        for _ in range(5 * NAMES_AT_ONCE // ROUND):
            flood.ask()
            assert flood.given <= flood.share
        answer = tor.run(
            *("anon2", "dig", "+short", "+tries=3", "+time=10"),
            *("@10.139.1.1", "A", tor.network.onion),
        )
        flood.ask()
        assert flood.given <= flood.share
        flood.close()

    assert answer.startswith("10.")


def test_without_the_rule_it_gets_them_all(tor: TorChain) -> None:
    """The positive control: the same questions, without the rule that counts them."""
    with tor.watched() as streams, tor.stopped("torvm"):
        tor.run("sys-tor", "nft", OPEN)
        flood = Flood(tor, streams)
        while flood.given <= flood.share + NAMES_AT_ONCE:
            assert monotonic() < flood.began + CIRCUITS
            flood.ask()
        flood.close()


def test_its_agent_sees_how_large_tor_is(tor: TorChain) -> None:
    """As its own user without rights, and as it sees processes."""
    agent = tor.agent("sys-tor")
    uid = Path(f"/proc/{agent}").stat().st_uid
    argv = ["nsenter", f"--mount=/proc/{agent}/ns/mnt", "setpriv", f"--reuid={uid}"]
    argv += [f"--regid={uid}", "--clear-groups", "--inh-caps=-all"]
    argv += ["grep", "VmRSS", f"/proc/{tor.process('/usr/bin/tor')}/status"]

    assert uid
    assert subprocess.check_output(argv, text=True).startswith("VmRSS:")

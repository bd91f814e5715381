# SPDX-License-Identifier: GPL-2.0-or-later
"""A client that opens all the flows it can does not take the network from others.

Class: R22 (leaks.md, 2).  ``work`` forges ports at full speed; ``other`` opens
connections meanwhile, each of which needs room in the tables of both gateways.

The positive control is the same flood without the limits: a server that answers
makes flows that the kernel does not give up for new ones, the table fills up, and
``other`` gets nothing.  (Flows that nobody answers it does give up by itself.)

Most of a crowd is put into the table as a flood over minutes would leave it; the
rest is really sent.
"""

import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from time import monotonic

import pytest

from agent.capacity import capacity
from agent.conntrack import CtNetlink
from agent.netlink import CREATE, NETFILTER, Netlink, Request, attribute
from controller import namespaces
from controller.lab.addresses import WEB
from tests.lab import flood
from tests.leaks.chain import Chain, Voice, appvm, running

pytestmark = pytest.mark.kernel

GATEWAYS = ("sys-firewall", "sys-net")
FLOWS = 100_000
CROWD = 2000  # flows, of which nothing but a flood makes as many
PATIENCE = 90.0  # seconds; only a failing test waits that long
HOPELESS = 4.0  # seconds: the first SYN, and two more
CONNECTIONS = 20
ECHO = 7
SAID = "work: it has more connections than are left for others"
NEW = 0x100  # NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW
NESTED = 0x8000
ANSWERED = 2 | 4 | 8  # IPS_SEEN_REPLY, IPS_ASSURED, IPS_CONFIRMED
LIFE = 600  # seconds
NINE = struct.pack(">H", 9)  # a port
SILENT = f"""
add table ip silent
add chain ip silent in {{ type filter hook input priority 0; }}
add rule ip silent in tcp dport {flood.PORT} drop
"""


@contextmanager
def made() -> Iterator[Chain]:
    with running(appvm("work"), appvm("other")) as chain:
        with namespaces.inside(chain.internet.net):
            for target in flood.TARGETS:
                argv = ["ip", "address", "add", target, "dev", "lo"]
                subprocess.run(argv, check=True)
            # Nobody refuses, for a flow that is refused is no more.
            subprocess.run(["nft", "-f", "-"], input=SILENT, text=True, check=True)
        yield chain


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    with made() as found:
        yield found


def forget(chain: Chain) -> None:
    for gateway in GATEWAYS:
        chain.run(gateway, "conntrack", "-F")


@contextmanager
def working(net: Path, *words: str) -> Iterator[None]:
    """Run an end of a flood; it has begun by now."""
    pipe = subprocess.PIPE
    argv = [sys.executable, flood.__file__, *words]
    end = namespaces.spawn(argv, net=net, stdin=pipe, stdout=pipe)
    try:
        assert end.stdout is not None
        assert end.stdout.readline() == b"ready\n"
        yield
    finally:
        end.communicate(timeout=PATIENCE)


@contextmanager
def flooding(chain: Chain, kind: str, flows: int = FLOWS) -> Iterator[None]:
    """Let ``work`` open that many flows, again and again; UDP is answered."""
    words = kind, str(chain.ip("work")[0]), str(flows)
    with working(chain.internet.net, "echo"), working(chain.net("work"), *words):
        yield


def fill(chain: Chain, flows: int) -> None:
    """Put answered flows of ``work`` into the table of its FirewallVM."""
    client, peer = chain.ip("work")[0], chain.ip("sys-firewall")[0]
    # There are many, which differ in the server and the port.
    body = struct.pack("=BBH", socket.AF_INET, 0, 0)
    body += _side(1, client.packed, b"ADDR", b"PT", NINE)
    body += _side(2, b"ADDR", peer.packed, NINE, b"PT")
    body += attribute(3, struct.pack(">I", ANSWERED))
    body += attribute(7, struct.pack(">I", LIFE))
    assert (body.count(b"ADDR"), body.count(b"PT")) == (2, 2)
    first = int(IPv4Address("203.0.113.0"))

    def flow(number: int) -> Request:
        server = (first + number // flood.EACH).to_bytes(4)
        port = (flood.FIRST + number % flood.EACH).to_bytes(2)
        this = body.replace(b"PT", port).replace(b"ADDR", server)
        return Request("put a flow", NEW, this, CREATE)

    with namespaces.inside(chain.net("sys-firewall")), Netlink(NETFILTER) as kernel:
        kernel.do(*map(flow, range(flows)))


def _side(kind: int, source: bytes, target: bytes, sport: bytes, dport: bytes) -> bytes:
    ip = attribute(1, source) + attribute(2, target)
    ports = attribute(2, sport) + attribute(3, dport)
    proto = attribute(1, bytes([socket.IPPROTO_UDP])) + ports
    tuples = attribute(1 | NESTED, ip) + attribute(2 | NESTED, proto)
    return attribute(kind | NESTED, tuples)


def present(chain: Chain, gateway: str) -> int:
    with namespaces.inside(chain.net(gateway)):
        conntrack = CtNetlink()
        found, _ = conntrack.full()
        conntrack.close()
    return found


def crowd(chain: Chain) -> list[int]:
    """Return the flows of both gateways, once a flood shows in both."""
    deadline = monotonic() + PATIENCE
    while min(found := [present(chain, each) for each in GATEWAYS]) < CROWD:
        assert monotonic() < deadline, found
    return found


def opens(chain: Chain, domain: str, patience: float = PATIENCE) -> bool:
    """Whether a domain gets a connection, and a word through it."""
    with namespaces.inside(chain.net(domain)):
        peer = socket.socket()
    with peer:
        peer.settimeout(patience)
        try:
            peer.connect((str(WEB[0]), ECHO))
            # A table that is full may give this flow up again for another one.
            return echoes(peer)
        except TimeoutError:
            return False


def echoes(peer: socket.socket) -> bool:
    peer.sendall(b"word")
    return peer.recv(4) == b"word"


def until(chain: Chain, holds: Callable[[], bool]) -> None:
    """Wait for what the agent of the FirewallVM says."""
    deadline = monotonic() + PATIENCE
    with Voice(chain, "sys-firewall") as voice:
        while not holds():
            voice.wait(max(0, deadline - monotonic()))


def named(chain: Chain) -> bool:
    return SAID in str(chain.ask("status").data)


@pytest.mark.parametrize("kind", flood.KINDS)
def test_others_open_connections_while_a_client_floods(chain: Chain, kind: str) -> None:
    """At full speed, at once: the pace of one client leaves room at both gateways."""
    with flooding(chain, kind):
        opened = [opens(chain, "other") for _ in range(CONNECTIONS)]
        found = crowd(chain)
    forget(chain)

    assert all(opened)
    assert max(found) < capacity() * 3 // 4


def test_who_has_too_many_connections_is_held_and_let_go_again(chain: Chain) -> None:
    """Over time, with answers: a flood that the pace does not keep from growing."""
    with namespaces.inside(chain.net("work")):
        old = socket.create_connection((str(WEB[0]), ECHO), PATIENCE)
    with old:
        fill(chain, capacity() * 45 // 100)
        with flooding(chain, "udp"):
            until(chain, lambda: named(chain))

            assert all(opens(chain, "other") for _ in range(CONNECTIONS))
            assert not opens(chain, "work", HOPELESS)
            assert echoes(old), "what it has goes on"
    assert named(chain), "it is held for what it has, not for what it does"

    forget(chain)
    until(chain, lambda: not named(chain))

    assert opens(chain, "work")


def test_without_limits_a_client_takes_the_table_from_the_others() -> None:
    """The positive control: no agent looks, and one chain of the guard is empty."""
    with made() as chain:
        assert opens(chain, "work")
        chain.ip("work")  # while somebody can be asked
        chain.crash()
        flush = "flush chain inet ravelin-guard opening"
        chain.run("sys-firewall", "nft", flush)
        fill(chain, capacity() - 10_000)
        assert opens(chain, "other")

        with flooding(chain, "udp", 12_000):
            deadline = monotonic() + PATIENCE
            while opens(chain, "other", HOPELESS):
                assert monotonic() < deadline, present(chain, "sys-firewall")

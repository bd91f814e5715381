# SPDX-License-Identifier: GPL-2.0-or-later
"""What the uplink of a carrier carries, and where its clients get to, in the kernel.

The gateway has an uplink ``eth0`` to the namespace ``outside``, a tunnel ``tun9`` to
``far`` and a client behind ``vif1.0``.  Whether something arrived is asked of
packet sockets at the far ends, and each "nothing" has its positive control: what was
sent last, by the same way and the same processor, has arrived and nothing before it.
"""

import os
import re
import select
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path
from time import monotonic

import pytest

from agent.capacity import capacity
from agent.nft import Nft
from controller import namespaces
from rules.carriers import carrier_guard
from rules.compile import compile_client
from rules.constant import constant
from rules.facts import (
    Carried,
    Client,
    Facts,
    Gateway,
    Mark,
    Redirect,
    Tunnel,
    Uid,
    Uplink,
)
from rules.flows import CARRIED, CONTROL_PORT, IN_TUNNEL, INTO_DAEMON, PING, Allowed
from rules.ground import Ground, Match
from rules.guard import uplink_guard
from rules.model import Action, Ports
from rules.redirects import NAMES_AT_ONCE
from rules.ruleset import ruleset
from rules.transaction import difference

pytestmark = pytest.mark.kernel

PATIENCE = 20.0  # seconds; only a failing test waits that long
DAEMON, SOMEBODY, MARK = 61500, 61501, 0xCA6C
ENDPOINT = (IPv4Address("192.0.2.1"), 51820)
UDP, TCP = 17, 6
CLIENT = IPv4Address("10.137.0.5")
MAC, VIF_MAC = "00:16:3e:5e:6c:00", "fe:ff:ff:ff:ff:ff"
BEYOND = "198.51.100.9"
NETS = ("gateway", "outside", "far", "client")
LINKS = f"""
ip -n gateway link add eth0 index 20 type veth peer name wan netns outside
ip -n gateway link add tun9 index 21 type veth peer name wan netns far
ip -n gateway link add vif1.0 index 22 type veth peer name eth0 netns client
ip -n gateway link set vif1.0 address {VIF_MAC}
ip -n gateway addr add 192.0.2.2/24 dev eth0
ip -n gateway addr add 10.8.0.2/24 dev tun9
ip -n gateway addr add 10.137.0.9/32 dev vif1.0
ip -n outside addr add 192.0.2.1/24 dev wan
ip -n far addr add 10.8.0.1/24 dev wan
ip -n far addr add {BEYOND}/32 dev wan
ip -n client link set eth0 address {MAC}
ip -n client addr add {CLIENT}/32 dev eth0
"""
UP = f"""
ip -n gateway link set lo up
ip -n gateway link set eth0 up
ip -n gateway link set tun9 up
ip -n gateway link set vif1.0 group 2 up
ip -n outside link set wan up
ip -n far link set wan up
ip -n client link set eth0 up
ip -n gateway route add {CLIENT} dev vif1.0
ip -n gateway route add 198.51.100.0/24 via 10.8.0.1
ip -n client route add default via 10.137.0.9 dev eth0 onlink
"""
OUTER = frozenset({CARRIED})
OPEN = frozenset({CARRIED, IN_TUNNEL, INTO_DAEMON, PING})
FACTS = Facts(
    clients=(Client("vif1.0", 22, MAC, CLIENT),),
    uplinks=(Uplink("eth0", 20, frozenset({ip_address("192.0.2.2")})),),
    connected=frozenset({CLIENT}),
    configured=True,
    kind=Gateway.PROXY,
    carried=frozenset({Carried(Uid(DAEMON), UDP, ENDPOINT)}),
    tunnel=Tunnel(
        "tun9",
        21,
        frozenset({ip_address("10.8.0.2")}),
        frozenset({ip_network("0.0.0.0/0")}),
        1280,
    ),
)
ALL = Ground((), Action.ACCEPT)
WEB_ONLY = Ground(
    (Match(Action.ACCEPT, None, frozenset({TCP}), Ports(80, 80), None, 0),),
    Action.DROP,
)
LAST = b"ravelin-last"  # as long as the shortest question
# A veth hands over on the processor of who sends, in order.
PROCESSOR = str(min(os.sched_getaffinity(0)))
SEND = """
import os, socket, sys
processor, uid, mark, address, port, text = sys.argv[1:]
os.sched_setaffinity(0, {int(processor)})
os.setresuid(int(uid), int(uid), int(uid))
made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
if int(mark):
    made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, int(mark))
try:
    made.connect((address, int(port)))
    made.send(text.encode())
except OSError:
    pass
"""


@dataclass
class Rig:
    """The four namespaces; ``load`` puts a state into force."""

    folder: Path

    def net(self, name: str) -> Path:
        return self.folder / name

    def load(self, allowed: Allowed, facts: Facts, ground: Ground = ALL) -> None:
        script = (
            constant(Gateway.PROXY, capacity())
            + carrier_guard("eth0")
            + uplink_guard("tun9")
        )
        script += difference(None, compile_client(CLIENT, ground))
        script += difference(None, ruleset(allowed, facts))
        with namespaces.inside(self.net("gateway")):
            Nft().load(script)

    def send(self, net: str, to: tuple[object, int], **how: object) -> None:
        """Send a datagram from a namespace as some user, whatever becomes of it."""
        given = {"uid": 0, "mark": 0, "text": "ravelin-test"} | how
        words = (given["uid"], given["mark"], *to, given["text"])
        with namespaces.inside(self.net(net)):
            argv = [sys.executable, "-c", SEND, PROCESSOR, *map(str, words)]
            subprocess.run(argv, check=True)

    def last(self, net: str, to: tuple[object, int], **how: object) -> None:
        """Send what arrives after all that was sent before (`Listener.until_last`)."""
        self.send(net, to, text=LAST.decode(), **how)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    for name in NETS:
        namespaces.create(made.net(name))
    try:
        for line in (LINKS + UP).strip().replace("\n\n", "\n").split("\n"):
            run_ip(made, line.split())
        with namespaces.inside(made.net("gateway")):
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        yield made
    finally:
        for name in NETS:
            namespaces.remove(made.net(name))


def run_ip(rig: Rig, words: list[str]) -> None:
    """Run ``ip -n NET …``; a namespace stands for its file, also after ``netns``."""
    with namespaces.inside(rig.net(words[2])):
        rest = [str(rig.net(x)) if x in NETS else x for x in words[3:]]
        subprocess.run(["ip", *rest], check=True)


class Listener:
    """Echoes at an address of a namespace; tells whom it has heard."""

    def __init__(self, rig: Rig, net: str, kind: int, at: tuple[str, int]) -> None:
        with namespaces.inside(rig.net(net)):
            self.socket = socket.socket(socket.AF_INET, kind)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.socket.bind(at)
        self.socket.settimeout(0)

    def heard(self, patience: float = 0.0) -> list[str]:
        """Return the senders of all that came, the first within ``patience``."""
        select.select([self.socket], [], [], patience)
        found = []
        while True:
            try:
                found.append(self.socket.recvfrom(64)[1][0])
            except BlockingIOError:
                return found

    def until_last(self) -> list[str]:
        """Return the senders of all that came before `Rig.last`, which must come."""
        found: list[str] = []
        while True:
            assert select.select([self.socket], [], [], PATIENCE)[0], found
            text, (sender, _) = self.socket.recvfrom(64)
            if text == LAST:
                return found
            found.append(sender)


def accepting(listening: dict[str, Listener], patience: float) -> list[str]:
    """Return who of them has a connection, and close them all.

    A client may know of one a moment before its server does.
    """
    select.select([each.socket for each in listening.values()], [], [], patience)
    found = []
    for name, each in listening.items():
        with suppress(BlockingIOError):
            each.socket.accept()[0].close()
            found.append(name)
        each.socket.close()
    return found


@pytest.fixture
def endpoint(rig: Rig) -> Iterator[Listener]:
    made = Listener(rig, "outside", socket.SOCK_DGRAM, ("192.0.2.1", 51820))
    yield made
    made.socket.close()


def test_the_daemon_reaches_its_endpoint(rig: Rig, endpoint: Listener) -> None:
    rig.load(OUTER, FACTS)
    rig.send("gateway", ENDPOINT, uid=DAEMON)

    assert endpoint.heard(PATIENCE) == ["192.0.2.2"]


@pytest.mark.parametrize("uid", [0, SOMEBODY])
def test_nobody_else_does(rig: Rig, endpoint: Listener, uid: int) -> None:
    """MUL-02-002; what the daemon sends after it arrives."""
    rig.load(OUTER, FACTS)
    rig.send("gateway", ENDPOINT, uid=uid)
    rig.last("gateway", ENDPOINT, uid=DAEMON)

    assert endpoint.until_last() == []


def test_another_port_or_another_state_carries_nothing(
    rig: Rig, endpoint: Listener
) -> None:
    other = frozenset({Carried(Uid(DAEMON), UDP, (ENDPOINT[0], 4433))})
    for allowed, facts in (
        (OUTER, replace(FACTS, carried=other)),
        (frozenset(), FACTS),
    ):
        rig.load(allowed, facts)
        rig.send("gateway", ENDPOINT, uid=DAEMON)
        rig.load(OUTER, FACTS)
        rig.last("gateway", ENDPOINT, uid=DAEMON)

        assert endpoint.until_last() == []


@pytest.mark.parametrize(("mark", "arrives"), [(MARK, True), (0, False), (7, False)])
def test_a_mark_carries_to_its_endpoint(
    rig: Rig, endpoint: Listener, mark: int, *, arrives: bool
) -> None:
    marked = frozenset({Carried(Mark(MARK), UDP, ENDPOINT)})
    rig.load(OUTER, replace(FACTS, carried=marked))
    rig.send("gateway", ENDPOINT, mark=mark)
    rig.last("gateway", ENDPOINT, mark=MARK)

    assert bool(endpoint.until_last()) is arrives


def test_a_user_may_be_carried_anywhere(rig: Rig, endpoint: Listener) -> None:
    anywhere = frozenset({Carried(Uid(DAEMON), UDP, None)})
    rig.load(OUTER, replace(FACTS, carried=anywhere))
    rig.send("gateway", ENDPOINT, uid=DAEMON)
    rig.send("gateway", ENDPOINT, uid=SOMEBODY)
    rig.last("gateway", ENDPOINT, uid=DAEMON)

    assert endpoint.until_last() == ["192.0.2.2"]


def frame() -> bytes:
    """Return a UDP packet from the uplink's address to the endpoint, as a frame."""
    udp = struct.pack("!HHHH", 51820, 51820, 8 + 4, 0) + b"leak"
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, UDP, 0)
    head += ip_address("192.0.2.2").packed + ENDPOINT[0].packed
    return b"\xff" * 6 + b"\x02" * 6 + b"\x08\x00" + head + udp


@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "control"])
def test_packet_sockets_are_nobody(rig: Rig, *, guarded: bool) -> None:
    """P13: only the netdev guard sees what a packet socket sends."""
    rig.load(OUTER, FACTS)
    with namespaces.inside(rig.net("gateway")):
        if not guarded:
            Nft().load("delete table netdev ravelin-guard")
        sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        sender.bind(("eth0", 0))
    with namespaces.inside(rig.net("outside")):
        sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        sniffer.bind(("wan", 0))
    sniffer.settimeout(0 if guarded else PATIENCE)
    with sender, sniffer:
        with suppress(OSError):  # ENOBUFS is how a dropped frame is told
            sender.send(frame())
        seen = b""
        with suppress(BlockingIOError):
            while b"leak" not in seen:
                seen = sniffer.recv(2048)
    assert (b"leak" in seen) is not guarded


@pytest.mark.parametrize(
    ("allowed", "arrives"), [(OPEN, ["10.8.0.2"]), (OUTER, [])], ids=["open", "lost"]
)
def test_clients_leave_by_the_tunnel_under_its_address(
    rig: Rig, allowed: Allowed, arrives: list[str]
) -> None:
    far = Listener(rig, "far", socket.SOCK_DGRAM, (BEYOND, 4433))
    rig.load(allowed, FACTS)
    rig.send("client", (BEYOND, 4433))
    rig.load(OPEN, FACTS)
    rig.last("client", (BEYOND, 4433))

    assert far.until_last() == arrives
    far.socket.close()


def test_clients_never_leave_by_the_uplink(rig: Rig, endpoint: Listener) -> None:
    """TunnelCrack, both: the route is there, and the endpoint is the daemon's."""
    far = Listener(rig, "far", socket.SOCK_DGRAM, (BEYOND, 4433))
    rig.load(OPEN, FACTS)

    rig.send("client", ENDPOINT)
    rig.last("client", (BEYOND, 4433))
    # Then the gateway has done with it what it does, and the uplink is in order.
    assert far.until_last() == []
    rig.last("gateway", ENDPOINT, uid=DAEMON)

    assert endpoint.until_last() == []
    far.socket.close()


def test_an_impostor_of_the_tunnel_gets_nothing(rig: Rig) -> None:
    """R7: rules that accept go by index, and the name is somebody else's."""
    far = Listener(rig, "far", socket.SOCK_DGRAM, (BEYOND, 4433))
    assert FACTS.tunnel is not None
    rig.load(OPEN, replace(FACTS, tunnel=replace(FACTS.tunnel, index=99)))
    rig.send("client", (BEYOND, 4433))
    rig.load(OPEN, FACTS)
    rig.last("client", (BEYOND, 4433))

    assert far.until_last() == []
    far.socket.close()


@pytest.mark.parametrize(
    ("ground", "said"), [(ALL, "the daemon"), (WEB_ONLY, "refused")], ids=str
)
def test_flows_end_at_the_daemon_if_the_rules_say_so(
    rig: Rig, ground: Ground, said: str
) -> None:
    """The port that the client wrote is judged, not the one it is sent to."""
    facts = replace(FACTS, tunnel=None, redirects={22: Redirect(tcp=9100, dns=9101)})
    rig.load(OPEN, facts, ground)
    daemon = Listener(rig, "gateway", socket.SOCK_STREAM, ("10.137.0.9", 9100))
    daemon.socket.listen(1)
    daemon.socket.settimeout(PATIENCE)
    with namespaces.inside(rig.net("client")), socket.socket() as client:
        client.settimeout(PATIENCE)
        try:
            client.connect((BEYOND, 443))
            accepted, sender = daemon.socket.accept()
            accepted.close()
            found = "the daemon" if sender[0] == str(CLIENT) else str(sender)
        except OSError:
            found = "refused"
    daemon.socket.close()
    assert found == said


def test_names_end_at_the_daemon_whomever_they_are_asked_of(rig: Rig) -> None:
    facts = replace(FACTS, tunnel=None, redirects={22: Redirect(tcp=9100, dns=9101)})
    rig.load(OPEN, facts)
    daemon = Listener(rig, "gateway", socket.SOCK_DGRAM, ("10.137.0.9", 9101))
    rig.send("client", ("9.9.9.9", 53))
    rig.send("client", ("9.9.9.9", 5353))
    rig.last("client", ("9.9.9.9", 53))

    assert daemon.until_last() == [str(CLIENT)]
    daemon.socket.close()


@pytest.mark.parametrize(
    ("to", "socks", "arrives"),
    [
        (("10.137.0.9", 9050), 9102, "socks"),
        (("10.137.0.9", 9050), 0, "transparent"),
        (("10.137.0.9", 9051), 9102, "transparent"),
        ((BEYOND, 9050), 9102, "transparent"),
    ],
)
def test_socks_is_spoken_at_one_port_of_the_gateway(
    rig: Rig, to: tuple[str, int], socks: int, arrives: str
) -> None:
    facts = replace(FACTS, tunnel=None, redirects={22: Redirect(9100, 9101, socks)})
    rig.load(OPEN, facts)
    ends = {"transparent": 9100, "socks": 9102}
    listening = {
        name: Listener(rig, "gateway", socket.SOCK_STREAM, ("10.137.0.9", port))
        for name, port in ends.items()
    }
    for each in listening.values():
        each.socket.listen(1)
    with namespaces.inside(rig.net("client")):
        socket.create_connection(to, timeout=PATIENCE).close()

    assert accepting(listening, PATIENCE) == [arrives]


@pytest.mark.parametrize(
    ("to", "allowed", "ground", "found"),
    [
        (("10.137.0.9", 9051), {CONTROL_PORT, INTO_DAEMON}, ALL, "control"),
        (("10.137.0.9", 9051), {CONTROL_PORT}, ALL, "control"),
        (("10.137.0.9", 9051), {INTO_DAEMON}, ALL, "transparent"),
        (("10.137.0.9", 9051), {CONTROL_PORT}, WEB_ONLY, "refused"),
        (("10.137.0.9", 9052), {CONTROL_PORT}, ALL, "refused"),
        ((BEYOND, 9051), {CONTROL_PORT}, ALL, "refused"),
        ((BEYOND, 9051), {CONTROL_PORT, INTO_DAEMON}, ALL, "transparent"),
    ],
    ids=str,
)
def test_the_control_port_is_one_port_of_the_gateway(
    rig: Rig, to: tuple[str, int], allowed: Allowed, ground: Ground, found: str
) -> None:
    """The agent answers it, in states in which the daemon carries nobody too."""
    facts = replace(FACTS, tunnel=None, redirects={22: Redirect(9100, 9101, 0, 9052)})
    rig.load(frozenset(allowed), facts, ground)
    ends = {"transparent": 9100, "control": 9052}
    listening = {
        name: Listener(rig, "gateway", socket.SOCK_STREAM, ("10.137.0.9", port))
        for name, port in ends.items()
    }
    for each in listening.values():
        each.socket.listen(1)
    patience = 0.0
    with namespaces.inside(rig.net("client")), suppress(OSError):
        socket.create_connection(to, timeout=PATIENCE).close()
        patience = PATIENCE

    assert (accepting(listening, patience) or ["refused"]) == [found]


@pytest.mark.parametrize(("size", "arrives"), [(12, True), (11, False), (0, False)])
def test_what_is_too_short_for_a_question_does_not_reach_the_daemon(
    rig: Rig, size: int, *, arrives: bool
) -> None:
    """libevent's DNS server ends with its process at less; also in a flow it knows."""
    facts = replace(FACTS, tunnel=None, redirects={22: Redirect(tcp=9100, dns=9101)})
    rig.load(OPEN, facts)
    daemon = Listener(rig, "gateway", socket.SOCK_DGRAM, ("10.137.0.9", 9101))
    with (
        namespaces.inside(rig.net("client")),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        client.connect(("9.9.9.9", 53))
        client.send(bytes(12))
        assert daemon.heard(PATIENCE)
        client.send(bytes(size))

    assert bool(daemon.heard(PATIENCE if arrives else 0)) is arrives
    daemon.socket.close()


def too_many(rig: Rig) -> int:
    """Return how many packets of clients were names beyond what they may ask for."""
    with namespaces.inside(rig.net("gateway")):
        argv = ["nft", "list", "table", "ip", "qubes"]
        listing = subprocess.check_output(argv, text=True)
    counters = re.findall(r'packets (\d+) .* comment "too many names"', listing)
    assert len(counters) == 2
    return sum(map(int, counters))


def test_a_client_asks_for_so_many_names_at_once_and_no_more(rig: Rig) -> None:
    """Questions of one flow count too; each is one that was heard or one too many."""
    facts = replace(FACTS, tunnel=None, redirects={22: Redirect(tcp=9100, dns=9101)})
    rig.load(OPEN, facts)
    daemon = Listener(rig, "gateway", socket.SOCK_DGRAM, ("10.137.0.9", 9101))
    client = Listener(rig, "client", socket.SOCK_DGRAM, ("0.0.0.0", 4053))
    client.socket.connect(("9.9.9.9", 53))
    sent = heard = 0
    deadline = monotonic() + PATIENCE
    while not (late := too_many(rig)):
        assert monotonic() < deadline, (sent, heard)
        for _ in range(50):
            client.socket.send(bytes(12))
        sent += 50
        while heard + (late := too_many(rig)) < sent:
            heard += len(daemon.heard(0.1))
            assert monotonic() < deadline, (sent, heard, late)
    daemon.socket.close()
    client.socket.close()

    assert heard >= NAMES_AT_ONCE


def test_names_by_socks_are_of_the_same_number(rig: Rig) -> None:
    """So is the control: a connection to elsewhere, when no name is left."""
    redirect = Redirect(tcp=9100, dns=9101, socks=9102)
    rig.load(OPEN, replace(FACTS, tunnel=None, redirects={22: redirect}))
    listening = [
        Listener(rig, "gateway", socket.SOCK_STREAM, ("10.137.0.9", port))
        for port in (9100, 9102)
    ]
    for each in listening:
        each.socket.listen(1)
        each.socket.settimeout(PATIENCE)
    transparent, socks = (each.socket for each in listening)
    with namespaces.inside(rig.net("client")):
        for _ in range(NAMES_AT_ONCE):
            with socket.create_connection(("10.137.0.9", 9050), timeout=PATIENCE):
                socks.accept()[0].close()
        deadline = monotonic() + PATIENCE
        while not too_many(rig):
            assert monotonic() < deadline
            # A look may take as long as it takes to earn one again.
            for _ in range(50):
                with socket.socket() as client:
                    client.settimeout(0)
                    client.connect_ex(("10.137.0.9", 9050))
        with socket.create_connection((BEYOND, 443), timeout=PATIENCE):
            transparent.accept()[0].close()
    for each in listening:
        each.socket.close()


@pytest.mark.parametrize("to", ["9.9.9.9", "10.137.0.9"])
def test_the_daemons_ports_are_not_reached_directly(rig: Rig, to: str) -> None:
    """T13: UDP to the port itself is not for the daemon."""
    facts = replace(FACTS, tunnel=None, redirects={22: Redirect(tcp=9100, dns=9101)})
    rig.load(OPEN, facts)
    daemon = Listener(rig, "gateway", socket.SOCK_DGRAM, ("10.137.0.9", 9101))
    rig.send("client", (to, 9101))
    rig.last("client", ("9.9.9.9", 53))

    assert daemon.until_last() == []
    daemon.socket.close()


@pytest.mark.parametrize(("port", "arrives"), [(68, True), (69, False)])
def test_a_client_renews_its_address_whatever_its_rules_say(
    rig: Rig, port: int, *, arrives: bool
) -> None:
    """RFC 2131, 4.4.5: it asks this domain from its own address."""
    facts = replace(FACTS, tunnel=None, redirects={22: Redirect(tcp=9100, dns=9101)})
    rig.load(OPEN, facts, WEB_ONLY)
    agent = Listener(rig, "gateway", socket.SOCK_DGRAM, ("0.0.0.0", 67))
    client = Listener(rig, "client", socket.SOCK_DGRAM, ("0.0.0.0", port))
    with suppress(OSError):  # a refusal is told
        client.socket.connect(("10.137.0.9", 67))
        client.socket.send(b"renew")
    assert bool(agent.heard(PATIENCE if arrives else 0)) is arrives
    agent.socket.close()
    client.socket.close()


def test_segments_fit_the_tunnel_in_both_directions(rig: Rig) -> None:
    """X7: the client and the server are each told of 1240 bytes."""
    rig.load(OPEN, FACTS)
    server = Listener(rig, "far", socket.SOCK_STREAM, (BEYOND, 80))
    server.socket.settimeout(PATIENCE)
    server.socket.listen(1)
    with namespaces.inside(rig.net("client")), socket.socket() as client:
        client.settimeout(PATIENCE)
        client.connect((BEYOND, 80))
        accepted, _ = server.socket.accept()
        with accepted:
            sizes = [
                end.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
                for end in (client, accepted)
            ]
    server.socket.close()
    # The option of timestamps takes 12 of them.
    assert sizes == [1228, 1228]

# SPDX-License-Identifier: GPL-2.0-or-later
"""Bridges by meek and by snowflake: what leaves the TorVM is what these need.

`tests/tor/outside.py` says what of the servers is real.
"""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from controller import namespaces
from controller.lab.addresses import remote
from controller.lab.torrc import NUMBERS, OR_PORT
from proof.claims import OwnOf, Status
from tests.lab import attacks
from tests.lab.ends import MARKER
from tests.lab.sniffer import TCP, UDP, Packet
from tests.tor.chain import CIRCUITS, TorChain
from tests.tor.outside import Broker, Meek, Relay, Stun, running
from tests.tor.test_tor_leaks import scene
from tests.tor.test_tor_proof import answered, world

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.filterwarnings("ignore:setDaemon:DeprecationWarning"),
]

HOST, TOR = "fronts", "/usr/bin/tor"
FRONT, STUN, LENDER = (str(remote(number)[0]) for number in (60, 61, 62))
HTTP, STUN_PORT, RELAY_PORT = 80, 3478, 8000
NAMES = {
    "front.example.net": (remote(60)[0],),
    "stun.example.net": (remote(61)[0],),
}
RESOLVERS = {"10.139.1.1", "10.139.1.2", "fd09:24ef:4179::a8b:1:1"}


@dataclass
class Outside:
    """The chain, and the namespace of the host with the fronts."""

    tor: TorChain
    net: Path
    fingerprint: str

    def bridge(self, line: str) -> None:
        self.tor.secret("tor.bridges", f"{line}\n")


@pytest.fixture(scope="module")
def outside(_tor_chain: TorChain) -> Iterator[Outside]:
    tor = _tor_chain
    good = (tor.runtime / "tor.bridges").read_text()
    tor.internet.set_names(NAMES)
    net = tor.internet.hosts.add(HOST, (60, 61, 62))
    yield Outside(tor, net, good.split()[2])
    tor.internet.set_names({})
    tor.secret("tor.bridges", good)


def sent(packets: list[Packet], protocol: int) -> set[tuple[str, int | None]]:
    """Return where packets of a protocol went."""
    found = [packet for packet in packets if packet.protocol == protocol]
    return {(str(packet.destination), packet.port) for packet in found}


def unasked(packets: list[Packet]) -> list[Packet]:
    """Return what is no question for a name, which the agent repeats every 30 s."""
    return [p for p in packets if p.port != 53 or str(p.destination) not in RESOLVERS]


def since(packets: list[Packet], begins: Callable[[Packet], bool]) -> list[Packet]:
    """Return the packets from the first of a kind: those of a tor before end first."""
    first = next(n for n, packet in enumerate(packets) if begins(packet))
    return packets[first:]


def test_by_meek_nothing_leaves_but_to_the_front(outside: Outside) -> None:
    """The front's name is asked by the agent; the bridge is behind what it serves."""
    tor = outside.tor
    line = f"meek_lite 192.0.2.20:80 {outside.fingerprint} "
    outside.bridge(line + "url=http://meek.example.net/ front=front.example.net")
    bridge = (str(remote(NUMBERS["bridge"])[0]), OR_PORT)
    with Meek(outside.net, FRONT, HTTP, bridge) as meek, tor.uplink() as uplink:
        tor.become('bridges = "tor.bridges"')
        assert tor.through("anon") in tor.exits
    questions = [p for p in uplink.packets if p.port == 53]
    after = since(uplink.packets, lambda packet: str(packet.destination) == FRONT)

    assert meek.hosts == {"meek.example.net"}
    assert sent(after, TCP) == {(FRONT, HTTP)}
    assert sent(unasked(after), UDP) == set()
    assert {str(packet.destination) for packet in questions} <= RESOLVERS
    assert any(b"\5front\7example" in packet.raw for packet in questions)


def user(tor: TorChain, name: str) -> int:
    """Return the uid of a program in sys-tor."""
    return Path(f"/proc/{tor.process(name)}").stat().st_uid


def says(tor: TorChain, uid: int, to: str) -> None:
    """Have a user in sys-tor send a marked datagram."""
    code = "import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
    code += f"s.sendto({MARKER!r} + sys.argv[1].encode(), ({to!r}, 4444))"
    words = ("--reuid", str(uid), "--regid", str(uid), "--clear-groups")
    with namespaces.inside(tor.net("sys-tor")):
        argv = ("setpriv", *words, "/usr/bin/python3", "-I", "-c", code, f"={uid}.")
        subprocess.run(argv, check=False, capture_output=True)


def test_snowflake_reaches_its_broker_its_stun_server_and_who_lends(
    outside: Outside,
) -> None:
    """Its user may send UDP to anybody, and to TCP's front; nobody else may."""
    tor = outside.tor
    line = f"snowflake 192.0.2.3:80 {outside.fingerprint} "
    line += f"fingerprint={outside.fingerprint} url=http://broker.example.net/ "
    line += "fronts=front.example.net,other.example.net ice=stun:stun.example.net:3478"
    outside.bridge(line)
    lender = ("/usr/bin/snowflake-proxy", "-broker", f"http://{FRONT}/")
    lender += ("-relay", f"ws://{LENDER}:{RELAY_PORT}/", "-allow-non-tls-relay")
    lender += ("-stun", f"stun:{STUN}:{STUN_PORT}", "-keep-local-addresses")
    with (
        Broker(outside.net, FRONT, HTTP) as broker,
        closing(Stun(outside.net, STUN, STUN_PORT)),
        closing(Relay(outside.net, LENDER, RELAY_PORT)) as relay,
        running(outside.net, *lender),
        tor.uplink() as uplink,
    ):
        tor.become('bridges = "tor.bridges"', state="connecting")
        assert relay.came.wait(CIRCUITS)
        snowflake, own = user(tor, "/usr/bin/snowflake-client"), user(tor, TOR)
        for uid in (0, own, user(tor, "torvm"), snowflake):
            says(tor, uid, FRONT)
        # Nor do clients get out by what is open, whatever they send.
        frames = attacks.fuzz(scene(tor, "anon", "anon2"))
        attacks.send(tor.net("anon"), "eth0", frames)
        proved = OwnOf("sys-tor", frozenset({snowflake}))
        refuted = OwnOf("sys-tor", frozenset({own}))
        results = answered(world(tor), proved, refuted)
    after = since(uplink.packets, lambda p: p.port == STUN_PORT)
    lent = {str(address) for number in (60, 61, 62) for address in remote(number)}

    assert broker.hosts == {"broker.example.net"}
    assert sent(after, TCP) == {(FRONT, HTTP)}
    assert (STUN, STUN_PORT) in sent(after, UDP)
    assert {host for host, _ in sent(unasked(after), UDP)} <= lent
    # The control is the datagram of its own user.
    said = [packet.raw for packet in uplink.packets if packet.marked]
    assert [f"={snowflake}.".encode() in raw for raw in said] == [True]
    # The prover knows who it is that may send in the clear, and finds who else.
    assert [result.status for result in results] == [
        *(Status.PROVED, Status.REFUTED),  # IPv4
        *(Status.PROVED, Status.REFUTED),  # IPv6
    ]
    found = {result.packet.fields["uid"] for result in results[1::2] if result.packet}
    assert found == {snowflake}

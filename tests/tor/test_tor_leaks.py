# SPDX-License-Identifier: GPL-2.0-or-later
"""Nothing leaves a TorVM but tor's TCP to relays, whatever happens to it.

Classes (leaks.md, 2.6): T1 to T9, T12, T13, T14, T16 and L5.  The uplink is seen
from its far end.  Each "nothing" has its control: `test_the_judge_sees_what_leaves`
sends the same frames past the guard and the rules.
"""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.layers.l2 import Ether

from controller import namespaces
from tests.e2e.machine import hang
from tests.lab import attacks
from tests.lab.attacks import PROBE, ip
from tests.lab.scene import Scene
from tests.lab.sniffer import TCP as TCP_NUMBER
from tests.lab.sniffer import Sniffer
from tests.leaks.rounds import Record, happen
from tests.tor.chain import BRIDGE, RELAYS, WEB, WEB6, TorChain

pytestmark = pytest.mark.kernel

Attack = Callable[[Scene], list[bytes]]
Happening = Callable[[TorChain], None]

ATTACKS: dict[Attack, str] = {
    attacks.fuzz: "T3 T4 T5 T6 T7 T8",
    attacks.stateless: "T1 T2",
    attacks.headers: "T6",
    attacks.hairpin: "T13",
    attacks.spoofed: "T12",
    attacks.foreign_dns: "T9",
}


PAUSE = 0.1  # seconds
ROUNDS = 8


def name(value: object) -> str:
    return getattr(value, "__name__", str(value))


def scene(tor: TorChain, client: str, other: str) -> Scene:
    (ip, ip6), (other4, other6) = tor.ip(client), tor.ip(other)
    (gate, gate6), (up, up6) = tor.ip("sys-tor"), tor.ip("sys-net")
    return Scene(
        client=str(ip),
        client6=str(ip6),
        gateway=str(gate),
        gateway6=str(gate6),
        server=WEB,
        server6=WEB6,
        other=str(other4),
        other6=str(other6),
        uplink=str(up),
        uplink6=str(up6),
    )


@contextmanager
def busy(tor: TorChain, client: str) -> Iterator[None]:
    """Have a client try everything without a pause meanwhile."""
    over, frames = threading.Event(), attacks.fuzz(scene(tor, client, "anon2"))

    def work() -> None:
        # Without a pause tor would have no time for anybody else.
        while not over.wait(PAUSE):
            with suppress(OSError):  # its link is being laid anew
                attacks.send(tor.net(client), "eth0", frames)
            for address in (WEB, WEB6):
                with namespaces.inside(tor.net(client)), suppress(OSError):
                    socket.create_connection((address, 80), timeout=0.2).close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("client", ["anon", "picky"])
@pytest.mark.parametrize("attack", ATTACKS, ids=name)
def test_nothing_of_a_client_leaves(tor: TorChain, attack: Attack, client: str) -> None:
    daemon = tor.process("/usr/bin/tor")
    with tor.uplink() as uplink, Sniffer(tor.net("anon2"), "eth0") as victim:
        attacks.send(tor.net(client), "eth0", attack(scene(tor, client, "anon2")))
        # tor's own traffic is there, so the wire is the right one.
        assert tor.through("anon2") in tor.exits
    assert uplink.leaked == []
    assert [packet for packet in uplink.packets if packet.marked] == []
    assert victim.marked == []
    # Nor is it the end of tor, for all the others.
    assert tor.process("/usr/bin/tor") == daemon


def test_the_judge_sees_what_leaves(tor: TorChain) -> None:
    """The control: without guard and rules the kernel forwards what is sent."""
    with tor.stopped("torvm"):
        before = tor.run("sys-tor", "nft", "list", "ruleset")
        try:
            tor.run("sys-tor", "nft", "flush ruleset")
            tor.run("sys-tor", "ip", "rule", "add", "pref", "1", "lookup", "main")
            with tor.uplink() as uplink:
                frames = attacks.fuzz(scene(tor, "anon", "anon2"))
                attacks.send(tor.net("anon"), "eth0", frames)
        finally:
            tor.run("sys-tor", "ip", "rule", "del", "pref", "1")
            tor.run("sys-tor", "nft", "-f", "-", feed=f"flush ruleset\n{before}")
    assert [packet for packet in uplink.leaked if packet.marked]


def test_a_daemon_of_the_gateway_itself_reaches_nobody(tor: TorChain) -> None:
    """T10: not even as root; that tor does is what all other tests rest on."""
    with tor.uplink() as uplink:
        with namespaces.inside(tor.net("sys-tor")):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(socket.AF_INET, kind) as made, suppress(OSError):
                    made.settimeout(1)
                    made.connect(("203.0.113.11", 5000))
                    made.send(b"LEAKPROBE" + bytes(8))
        tor.through("anon")
    assert uplink.leaked == []
    assert [packet for packet in uplink.packets if packet.marked] == []


def test_a_client_reaches_no_relay_by_itself(tor: TorChain) -> None:
    """TunnelCrack, ServerIP (CVE-2023-36673): the way to relays is tor's alone."""
    at = scene(tor, "anon", "anon2")
    ether = Ether(src=at.client_mac, dst=at.gateway_mac)
    kinds = [UDP(sport=4242, dport=5000)]
    kinds += [TCP(sport=4242, dport=5000, flags=flags) for flags in ("S", "A", "PA")]
    frames = [
        bytes(ether / ip(at.client, str(to)) / kind / PROBE)
        for to, _ in (*RELAYS, BRIDGE)
        for kind in kinds
    ]
    with tor.uplink() as uplink:
        attacks.send(tor.net("anon"), "eth0", frames)
        assert tor.through("anon2") in tor.exits
    assert uplink.leaked == []
    assert [packet for packet in uplink.packets if packet.marked] == []


def tor_is_killed(tor: TorChain) -> None:
    tor.end("/usr/bin/tor")


def tor_stands_still_and_is_ended(tor: TorChain) -> None:
    """Its agent does that after two minutes; this is the same at once."""
    hang(tor.running("/usr/bin/tor"), "tor")
    tor.running("/usr/bin/tor")


def agent_is_killed(tor: TorChain) -> None:
    tor.end("torvm")


def agent_reloads(tor: TorChain) -> None:
    with suppress(ProcessLookupError):
        os.kill(tor.running("torvm"), signal.SIGHUP)


def tor_reads_its_file_again(tor: TorChain) -> None:
    """Somebody sends SIGHUP: tor is held then, until the agent lets it out."""
    with suppress(ProcessLookupError):
        os.kill(tor.running("/usr/bin/tor"), signal.SIGHUP)


def rules_are_reloaded(tor: TorChain) -> None:
    for _ in range(20):
        tor.firewall("picky", "add", "accept", "dsthost=198.51.100.81")
        tor.firewall("picky", "del", number=2)


def rules_are_deleted(tor: TorChain) -> None:
    """L9: somebody flushes the table; the agent takes it back."""
    tor.run("sys-tor", "nft", "flush table ip qubes")


def uplink_flaps(tor: TorChain) -> None:
    vif = next(
        line.split(":")[1].strip().partition("@")[0]
        for line in tor.run("sys-net", "ip", "-o", "link").splitlines()
        if "vif" in line
    )
    for way in ("down", "up"):
        tor.run("sys-net", "ip", "link", "set", vif, way)
    tor.until("up")


def both_are_killed(tor: TorChain) -> None:
    for pid in (tor.running("torvm"), tor.running("/usr/bin/tor")):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def gateway_boots(tor: TorChain) -> None:
    """A new namespace, new links, another agent and another tor."""
    tor.cli("restart", "sys-tor")


def routes_are_injected(tor: TorChain) -> None:
    """TunnelVision (CVE-2024-3661): what DHCP's option 121 would put into main."""
    gateway = str(tor.ip("sys-net")[0])
    for to in ("0.0.0.0/1", "128.0.0.0/1", f"{WEB}/32"):
        words = f"route replace {to} via {gateway} dev eth0 onlink"
        tor.run("sys-tor", "ip", *words.split())


def sites_are_on_the_local_network(tor: TorChain) -> None:
    """TunnelCrack, LocalNet (CVE-2023-36672): the web's prefix is on the link."""
    tor.run("sys-tor", "ip", "route", "replace", "198.51.100.0/24", "dev", "eth0")


def entry_is_another(tor: TorChain) -> None:
    """A bridge is chosen: not one relay may be talked to any more; and back."""
    tor.become('bridges = "tor.bridges"')
    tor.become()


def bridges_are_misspelt(tor: TorChain) -> None:
    """L2: a file with an error, and what it was again."""
    good = (tor.runtime / "tor.bridges").read_text()
    tor.secret("tor.bridges", f"{good}\\\n")
    try:
        tor.become('bridges = "tor.bridges"', state="error")
    finally:
        tor.secret("tor.bridges", good)
        tor.become()


HAPPENINGS: tuple[Happening, ...] = (
    tor_is_killed,
    tor_stands_still_and_is_ended,
    agent_is_killed,
    both_are_killed,
    agent_reloads,
    tor_reads_its_file_again,
    rules_are_reloaded,
    rules_are_deleted,
    uplink_flaps,
    gateway_boots,
    routes_are_injected,
    sites_are_on_the_local_network,
    entry_is_another,
    bridges_are_misspelt,
)


@pytest.mark.parametrize("happening", HAPPENINGS, ids=name)
def test_nothing_leaves_while_something_happens(
    tor: TorChain, happening: Happening
) -> None:
    """L5, L9, T16: under a client that tries everything; clients are served again."""
    more = [BRIDGE] if happening is entry_is_another else []
    with tor.uplink(*more) as uplink, busy(tor, "anon"):
        happening(tor)
        tor.through("anon2")
    assert uplink.leaked == []
    assert [p for p in uplink.packets if p.marked] == []
    assert [p for p in uplink.packets if p.protocol == TCP_NUMBER]
    assert tor.through("anon") in tor.exits


def test_nothing_leaves_whatever_follows_whatever(tor: TorChain) -> None:
    """The same in another order each time, upon what is not well yet."""
    record = Record("tor")
    with busy(tor, "anon"):
        leaks = happen(
            tor,
            record,
            HAPPENINGS,
            watch=lambda: tor.uplink(BRIDGE),
            flows=lambda: tor.through("anon2"),
            fallen=tor.fallen,
            rounds=ROUNDS,
        )

    assert leaks == [], record.seed


PORTS = (53, 9050, 9051, 9053, 10000, 10001, 10002, 30000)


@pytest.fixture(scope="module")
def answers(_tor_chain: TorChain) -> dict[int, str]:
    """What comes from each port of the gateway; all are waited for at once."""
    _tor_chain.plain()
    gateway = str(_tor_chain.ip("sys-tor")[0])

    def asked(port: int) -> str:
        return _tor_chain.fetch("anon", gateway, port, patience=2.0)

    with ThreadPoolExecutor(len(PORTS)) as pool:
        return dict(zip(PORTS, pool.map(asked, PORTS), strict=True))


@pytest.mark.parametrize("port", PORTS)
def test_no_port_of_the_gateway_answers_a_client(
    answers: dict[int, str], port: int
) -> None:
    """T13, T14: what is sent to the gateway itself goes to tor, which refuses it.

    The control is the listener that every client has: it answers on each port of
    another host.
    """
    assert answers[port] == ""

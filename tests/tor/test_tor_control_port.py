# SPDX-License-Identifier: GPL-2.0-or-later
"""Applications in an AppVM ask their gateway for another identity, and get no more.

The client is stem, as any application would use it: by the gateway's port 9051.
"""

import os
import random
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import stem
import stem.control

from controller import namespaces
from proof.claims import OnlyThrough, OwnOf, Status
from tests.e2e.machine import until
from tests.lab.tor_network import RETRY
from tests.leaks.chain import PATIENCE
from tests.tor.chain import CIRCUITS, WEB, TorChain
from tests.tor.test_tor_isolation import ROUNDS, moves_alone
from tests.tor.test_tor_proof import answered, user, world
from torvm.desk import AT, MOST
from torvm.filter import FILTERED

pytestmark = [
    pytest.mark.kernel,
    # stem's threads; the agent does not use them.
    pytest.mark.filterwarnings("ignore:setDaemon:DeprecationWarning"),
]

PORT, SOCKS = 9051, 9050
SWITCHES = ("socks = true", "control = true")
SHORT = 2.0  # seconds that nothing is waited for
REFUSED = (
    "GETINFO circuit-status",
    "GETINFO stream-status",
    "GETINFO orconn-status",
    "GETINFO entry-guards",
    "GETINFO ns/all",
    "GETINFO address",
    "GETINFO address-mappings/all",
    "GETINFO config-text",
    "GETINFO net/listeners/trans",
    "GETINFO process/pid",
    "GETCONF TransPort",
    "SETCONF MaxCircuitDirtiness=600",
    "RESETCONF MaxCircuitDirtiness",
    "MAPADDRESS 198.51.100.200=www.example.com",
    "ADD_ONION NEW:BEST Flags=DiscardPK Port=80",
    "EXTENDCIRCUIT 0",
    "CLOSECIRCUIT 1",
    "SETEVENTS ADDRMAP",
    "SIGNAL CLEARDNSCACHE",
)


@pytest.fixture(scope="module")
def _controlled(_tor_chain: TorChain) -> Iterator[TorChain]:
    _tor_chain.become(*SWITCHES)
    yield _tor_chain
    _tor_chain.become()


@pytest.fixture
def tor(_controlled: TorChain) -> TorChain:
    """The chain, up, with control ports."""
    _controlled.until("up")
    return _controlled


def gateway(tor: TorChain, version: int = 0) -> str:
    return str(tor.ip("sys-tor")[version])


@contextmanager
def controller(tor: TorChain, client: str) -> Iterator[Any]:
    """Give stem's view of the port of a client, from inside of it."""
    with namespaces.inside(tor.net(client)):
        made = stem.control.Controller.from_port(gateway(tor), PORT)
    with made:
        made.authenticate()
        yield made


def reaches(tor: TorChain, net: str, address: str, port: int) -> bool:
    """Return whether a connection from there is taken, and spoken to."""
    try:
        with namespaces.inside(tor.net(net)):
            made = socket.create_connection((address, port), SHORT)
        with made:
            made.sendall(b"PROTOCOLINFO\r\n")
            return made.recv(64).startswith(b"250")
    except OSError:
        return False


def is_reached(tor: TorChain, net: str, address: str) -> None:
    """Wait until the control port at an address answers, on a busy machine too."""
    until(lambda: reaches(tor, net, address, PORT), within=PATIENCE)


def test_stem_finds_what_is_true_of_its_client(tor: TorChain) -> None:
    with controller(tor, "anon") as found:
        phase = found.get_info("status/bootstrap-phase")
        version = str(found.get_version())
        listeners = found.get_listeners(stem.control.Listener.SOCKS)
        circuits = found.get_info("status/circuit-established")
    with tor.watched() as streams:
        assert version in str(streams.controller.get_version())

    assert phase.split()[2] == "PROGRESS=100"
    assert circuits == "1"
    assert listeners == [(gateway(tor), SOCKS)]
    # What it says of SOCKS is so.
    proxy = f"{listeners[0][0]}:{listeners[0][1]}"
    page = "http://www.example.com/ip"
    words = ("--silent", *RETRY, "--socks5-hostname", proxy, page)
    assert tor.run("anon", "curl", *words).strip() in tor.exits


def test_a_client_gives_itself_another_identity_and_nobody_else(
    tor: TorChain,
) -> None:
    """The next circuits of one are others, those of the other client are not."""
    with tor.watched() as streams, controller(tor, "anon") as mine:

        def renew() -> None:
            mine.signal(stem.Signal.NEWNYM)

        assert any(moves_alone(tor, streams, renew) for _ in range(ROUNDS))
        # Who asked is not cut off.
        assert mine.get_info("status/circuit-established") == "1"


@pytest.mark.parametrize("command", REFUSED)
def test_nothing_else_is_taken(tor: TorChain, command: str) -> None:
    """The control is tor itself, which has an answer to each."""
    with controller(tor, "anon") as mine, tor.watched() as streams:
        refused = str(mine.msg(command))
        answered_by_tor = str(streams.controller.msg(command))

    assert refused == FILTERED.removeprefix("510 ")
    assert "Unrecognized command" not in answered_by_tor
    assert answered_by_tor != refused


@pytest.mark.parametrize("name", ["SHUTDOWN", "HALT"])
def test_a_client_does_not_end_tor(tor: TorChain, name: str) -> None:
    """The control: tor ends when it is told so itself."""
    before = tor.process("/usr/bin/tor")
    with controller(tor, "anon") as mine:
        assert str(mine.msg(f"SIGNAL {name}")) == "Command filtered"
    assert tor.through("anon2") in tor.exits
    assert tor.process("/usr/bin/tor") == before

    with tor.watched() as streams:
        streams.controller.msg(f"SIGNAL {name}")
    until(lambda: _another(tor, before), within=PATIENCE)
    tor.until("up")


def _another(tor: TorChain, before: int) -> bool:
    with suppress(LookupError):
        return tor.process("/usr/bin/tor") != before
    return False


def test_what_was_open_is_cut_when_it_is_told(tor: TorChain) -> None:
    """The control is the other client's connection, which goes on.

    On a busy machine its circuit may end by itself, so there are some rounds.
    """
    assert any(_goes_on(tor) for _ in range(ROUNDS))


def _goes_on(tor: TorChain) -> bool:
    """Have ``anon`` be cut; return whether the connection of ``anon2`` is not."""
    opened = {}
    for client in ("anon", "anon2"):
        tor.through(client)
        with namespaces.inside(tor.net(client)):
            opened[client] = socket.create_connection((WEB, 80), PATIENCE)
    with controller(tor, "anon") as mine:
        mine.signal(stem.Signal.NEWNYM)
    found = []
    for client, made in opened.items():
        with made, suppress(OSError):
            made.settimeout(SHORT if client == "anon" else PATIENCE)
            made.sendall(b"GET /ip HTTP/1.0\r\nHost: www.example.com\r\n\r\n")
            if made.recv(64):
                found.append(client)

    assert "anon" not in found
    return found == ["anon2"]


def test_the_list_of_a_client_decides_whether_it_may_ask(tor: TorChain) -> None:
    """``picky`` may not, until its list says so."""
    assert not reaches(tor, "picky", gateway(tor), PORT)
    rule = ("accept", f"dst4={gateway(tor)}/32", "proto=tcp", f"dstports={PORT}")
    tor.firewall("picky", "add", *rule)
    try:
        is_reached(tor, "picky", gateway(tor))
    finally:
        tor.firewall("picky", "del", number=2)
    assert not reaches(tor, "picky", gateway(tor), PORT)


def test_nobody_reaches_the_port_of_another(tor: TorChain) -> None:
    """Neither the agent's own port nor another way in answers anybody."""
    own, own6 = (gateway(tor, version) for version in (0, 1))
    tries = [
        *((client, own, AT) for client in ("anon", "anon2")),
        ("anon", own6, AT),
        ("anon", WEB, PORT),
        ("sys-net", own, PORT),
        ("sys-net", own, AT),
        ("sys-tor", "127.0.0.1", PORT),
        ("sys-tor", "127.0.0.1", AT),
        ("sys-tor", own, AT),
    ]

    # Each is waited for in vain, so all are tried at the same time.
    with ThreadPoolExecutor(len(tries)) as pool:
        found = pool.map(lambda each: reaches(tor, *each), tries)

    assert dict(zip(tries, found, strict=True)) == dict.fromkeys(tries, False)
    # The control, by both versions of IP.
    is_reached(tor, "anon", own)
    is_reached(tor, "anon", own6)


def test_no_daemon_of_the_domain_reaches_the_port_of_a_client(tor: TorChain) -> None:
    """One that binds to the client's vif is taken, and told nothing."""
    with namespaces.inside(tor.net("sys-tor")):
        vifs = [name for _, name in socket.if_nameindex() if name.startswith("vif")]
    assert vifs

    assert [told(tor, vif) for vif in vifs] == [b""] * len(vifs)


def told(tor: TorChain, vif: str) -> bytes:
    """Return what the agent says to a program of its domain that binds to a vif."""
    with namespaces.inside(tor.net("sys-tor")), socket.socket() as daemon:
        daemon.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, vif.encode())
        daemon.settimeout(PATIENCE)
        daemon.connect((gateway(tor), AT))
        with suppress(ConnectionError):
            daemon.sendall(b"PROTOCOLINFO\r\n")
            return daemon.recv(64)
    return b""


# Each asks for a new identity, of which a client gets one in ten seconds.
@pytest.mark.parametrize(
    ("client", "version"), [("anon", 0), ("anon2", 1)], ids=["IPv4", "IPv6"]
)
def test_what_tor_browser_says_at_its_start_is_answered(
    tor: TorChain, client: str, version: int
) -> None:
    """It gives up if it may not ask for events, and goes on without circuits."""
    address = gateway(tor, version)
    shown = f"[{address}]" if version else address
    said = [
        "AUTHENTICATE 3d5c3b28404f6b5d",
        "SETEVENTS CIRC STREAM",
        "GETINFO circuit-status",
        "GETINFO net/listeners/socks",
        "SIGNAL NEWNYM",
    ]
    with namespaces.inside(tor.net(client)):
        made = socket.create_connection((address, PORT), PATIENCE)
    heard = []
    with made, made.makefile("rb") as lines:
        for line in said:
            made.sendall(f"{line}\r\n".encode())
            while not (answer := lines.readline().decode().strip())[3:4].isspace():
                heard.append(answer)
            heard.append(answer)

    assert heard == [
        "250 OK",
        "250 OK",
        FILTERED,
        f'250-net/listeners/socks="{shown}:{SOCKS}"',
        "250 OK",
        "250 OK",
    ]


def test_garbage_and_floods_do_not_stop_the_agent(tor: TorChain) -> None:
    """Meanwhile another client is served, and rules are changed."""
    over, agent = threading.Event(), tor.agent("sys-tor")
    floods = [
        threading.Thread(target=_flood, args=(tor, over, number)) for number in range(3)
    ]
    with tor.uplink() as uplink:
        for flood in floods:
            flood.start()
        try:
            for _ in range(3):
                with controller(tor, "anon2") as other:
                    other.signal(stem.Signal.NEWNYM)
                    assert other.get_info("status/circuit-established") == "1"
                tor.firewall("picky", "add", "accept", "dsthost=198.51.100.81")
                tor.firewall("picky", "del", number=2)
                assert tor.through("anon2") in tor.exits
        finally:
            over.set()
            for flood in floods:
                flood.join()

    assert tor.agent("sys-tor") == agent
    assert uplink.leaked == []
    # It may have to take in first that all of the flood has hung up.
    is_reached(tor, "anon", gateway(tor))
    with controller(tor, "anon") as mine:
        assert mine.get_info("status/circuit-established") == "1"


def _flood(tor: TorChain, over: threading.Event, seed: int) -> None:
    """Say all kinds of things, on as many connections as there may be and more."""
    kinds = random.Random(seed)
    text = ("GETINFO circuit-status", "SIGNAL NEWNYM", "AUTHENTICATE", "+LOADCONF")
    made: list[socket.socket] = []
    while not over.is_set():
        with suppress(OSError), namespaces.inside(tor.net("anon")):
            made.append(socket.create_connection((gateway(tor), PORT), SHORT))
        for each in made:
            each.setblocking(False)  # noqa: FBT003
            words = "\r\n".join(["AUTHENTICATE", *kinds.choices(text, k=50), ""])
            with suppress(OSError):
                each.send(kinds.choice((words.encode(), kinds.randbytes(3000))))
        while len(made) > MOST + 2:
            made.pop(kinds.randrange(len(made))).close()
        over.wait(0.02)
    for each in made:
        each.close()


def test_a_connection_outlives_tor_and_not_the_agent(tor: TorChain) -> None:
    with controller(tor, "anon") as mine:
        tor.end("/usr/bin/tor")
        established = "status/circuit-established"
        # The state may still be that of the tor before.
        assert until(lambda: mine.get_info(established) == "1", within=CIRCUITS)
        mine.signal(stem.Signal.NEWNYM)
        os.kill(tor.agent("sys-tor"), signal.SIGKILL)
        until(lambda: not mine.is_alive(), within=PATIENCE)
    tor.through("anon")
    is_reached(tor, "anon", gateway(tor))


def test_with_it_nothing_leaves_but_through_tor_either(tor: TorChain) -> None:
    """Proved from the live kernels, as without it."""
    through = OnlyThrough("anon", "sys-tor")
    own = OwnOf("sys-tor", frozenset({user(tor)}))

    results = answered(world(tor), through, own)

    assert [result.status for result in results] == [Status.PROVED] * 4


def test_what_clients_asked_in_vain_is_told_without_an_address(tor: TorChain) -> None:
    with controller(tor, "anon") as mine:
        mine.msg("GETINFO address")
    tor.firewall("picky", "add", "accept", "dsthost=198.51.100.81")
    tor.firewall("picky", "del", number=2)
    answer = tor.ask("status").data
    assert isinstance(answer, dict)
    report = next(d["report"] for d in answer["domains"] if d["name"] == "sys-tor")
    log = "".join(p.read_text() for p in (tor.runtime / "log").glob("sys-tor*"))
    lines = [line for line in log.splitlines() if "control port" in line]

    assert int(report["control-refused"]) >= 1
    assert lines
    addresses = [str(each) for name in ("anon", "sys-tor") for each in tor.ip(name)]
    assert not any(address in line for line in lines for address in addresses)


def test_switched_off_it_is_gone(tor: TorChain) -> None:
    """Nothing listens, and nothing is sent there."""
    listing = ("ss", "--listening", "--tcp", "--numeric", f"sport = :{AT}")
    mapped = ("nft", "list", "map", "ip", "qubes", "to_control")
    before = tor.run("sys-tor", *listing) + tor.run("sys-tor", *mapped)
    tor.become("socks = true")
    after = tor.run("sys-tor", *listing) + tor.run("sys-tor", *mapped)

    assert not reaches(tor, "anon", gateway(tor), PORT)
    assert f":{AT} " in before
    assert "elements" in before
    assert f":{AT} " not in after
    assert "elements" not in after
    # The control, on the same chain.
    tor.become(*SWITCHES)
    is_reached(tor, "anon", gateway(tor))

# SPDX-License-Identifier: GPL-2.0-or-later
"""The driver, the real daemon and a real server, in the kernel."""

import math
import os
import select
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path

import pytest

from agent.berth import CARRIERS
from controller import namespaces
from rules.virtual_dns import VIRTUAL4
from tests.e2e.machine import stilled
from tests.lab.sniffer import Sniffer
from tests.vpn.openvpn_room import (
    BEYOND,
    DAEMON,
    DEADLINE,
    FACTS,
    OTHER,
    SERVER,
    Room,
    command,
    room,
)
from tests.vpn.openvpn_server import (
    INSIDE,
    LONG_AGO,
    PASSWORD,
    USER,
    Pki,
    Server,
    profile,
    running,
)
from vpn import endpoints, openvpn_attempts, openvpn_daemon, openvpn_driver
from vpn.openvpn_daemon import DEVICE

pytestmark = pytest.mark.kernel

LOGIN = f"{USER}\n{PASSWORD}\n".encode()
DNS = ('push "dhcp-option DNS 10.8.0.1"',)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    made = Pki(tmp_path_factory.mktemp("pki") / "lab")
    made.issue("server", "server")
    made.issue("client", "client")
    made.issue("old-server", "server", LONG_AGO)
    made.issue("old-client", "client", LONG_AGO)
    other = Pki(tmp_path_factory.mktemp("pki") / "other")
    other.issue("stranger", "client")
    for name in ("stranger.crt", "stranger.key"):
        (made.place / name).write_text(other.read(name))
    for name in ("auth.key", "other.key"):
        made.key("secret", name)
    for name in ("ours", "theirs"):
        made.key("tls-crypt-v2-server", f"{name}.server")
        made.client_key(f"{name}.server", f"{name}.v2")
    return made


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    """A room whose directory the daemon's user reaches."""
    monkeypatch.setenv(CARRIERS, f"openvpn={DAEMON}")
    with tempfile.TemporaryDirectory(prefix="ravelin-openvpn-") as name:
        Path(name).chmod(0o755)
        with room(Path(name)) as made:
            yield made


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server has 2 seconds at first, and when it answered 2 more for the rest.

    The daemon waits for one of them: before it connects it asks where to, and
    looks for the answer once a second; for that of a server over TCP it does too.
    """
    monkeypatch.setattr(openvpn_driver, "HANDSHAKE", 2.0)
    monkeypatch.setattr(endpoints, "FIRST_PATIENCE", 2.0)


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tunnel that was up at all was good, and is tried again without a pause."""
    monkeypatch.setattr(openvpn_attempts, "STABLE", 0.0)


@pytest.fixture
def server(pki: Pki, place: Room) -> Server:
    return Server(pki, place.net("outside"), SERVER, more=DNS)


def up(place: Room, pki: Pki, *servers: str, **how: str) -> None:
    place.begin(profile(pki, *(servers or (f"{SERVER} 1194",)), **how))
    place.until_state("up")


@pytest.mark.parametrize("proto", ["udp", "tcp"])
def test_a_client_leaves_by_the_tunnel(
    pki: Pki, place: Room, server: Server, proto: str
) -> None:
    """And asks the resolver that the server named."""
    server.proto = proto
    with running(server):
        up(place, pki, f"{SERVER} 1194 {proto}")

        assert place.reaches(BEYOND)
        assert place.trail == ["connecting", "up"]
        assert place.driver.trouble() == ""
        assert place.facts.dns == dict.fromkeys(VIRTUAL4, ip_address(INSIDE))
        assert place.driver.report()["server"] == f"{SERVER} port 1194/{proto}"


def test_the_daemon_has_no_rights_and_no_secret_is_on_show(
    pki: Pki, place: Room, server: Server
) -> None:
    """Nothing of the profile or the login is in a file, an argument or a log."""
    server.asks_login = True
    with running(server):
        place.begin(profile(pki, f"{SERVER} 1194", more="auth-user-pass"), LOGIN)
        place.until_state("up")
        (pid,) = place.daemons()
        status = Path(f"/proc/{pid}/status").read_text()
        shown = [command(pid), Path(f"/proc/{pid}/environ").read_text()]
        shown.append((place.folder / "log").read_text())

    assert "CapEff:\t0000000000000000" in status
    assert "CapBnd:\t0000000000000000" in status
    assert f"Uid:\t{DAEMON}\t{DAEMON}\t{DAEMON}" in status
    key = pki.read("client.key").splitlines()[1]
    for text in shown:
        assert PASSWORD not in text
        assert key not in text


@pytest.mark.usefixtures("hasty")
def test_without_an_answer_the_next_server_is_tried_and_nothing_else_pinned(
    pki: Pki, place: Room, server: Server
) -> None:
    """One endpoint at a time is what the uplink may carry."""
    server.address = OTHER
    with running(server):
        place.begin(profile(pki, f"{SERVER} 4 udp", f"{OTHER} 1194 udp"))
        pinned = []
        while place.course.state != "up":
            pinned.append({each.endpoint for each in place.facts.carried})
            place.turn()

    assert all(len(each) <= 1 for each in pinned)
    assert {(ip_address(SERVER), 4)} in pinned
    assert place.is_cut_off(BEYOND)  # the server is gone by now


@pytest.mark.parametrize(
    ("cert", "text"),
    [
        (("old-client", "server"), "<cert> expired on 2020-02-01"),
        (("client", "old-server"), "the server's certificate has expired"),
        (("stranger", "server"), "the server broke off the handshake"),
    ],
)
@pytest.mark.usefixtures("hasty")
def test_a_bad_certificate_is_named(
    pki: Pki, place: Room, server: Server, cert: tuple[str, str], text: str
) -> None:
    server.cert = cert[1]
    with running(server):
        place.begin(profile(pki, f"{SERVER} 1194", cert=cert[0]))
        says(place, f"{text} ({SERVER} port 1194/udp)")


CONTROLS = ("tls-auth auth.key 1", "tls-crypt-v2 ours.v2", "")


@pytest.mark.parametrize("control", CONTROLS)
def test_every_kind_of_key_of_the_control_channel_is_used(
    pki: Pki, place: Room, server: Server, control: str
) -> None:
    """And none; <tls-crypt> is that of every other test."""
    server.control = opposite(control)
    with running(server):
        up(place, pki, control=control)

        assert place.reaches(BEYOND)


def opposite(control: str) -> str:
    """Return what the server has for a client's key, or for none."""
    return control.replace("key 1", "key 0").replace(".v2", ".server")


UNSAID = {
    "udp": "the server does not answer: not reachable, or",
    "tcp": "the server broke the connection at once: perhaps",
}
CRYPT, V2 = "<tls-crypt> is not its own", "<tls-crypt-v2> is not its own"
AUTH = "<tls-auth> or key-direction is not its own"
NOT_ITS_OWN = (  # the client's key, that of the server, and what is doubted
    ("tls-crypt other.key", "tls-crypt crypt.key", CRYPT),
    ("tls-crypt crypt.key", "tls-auth auth.key 0", CRYPT),
    ("tls-auth other.key 1", "tls-auth auth.key 0", AUTH),
    ("tls-auth auth.key 0", "tls-auth auth.key 0", AUTH),
    ("tls-crypt-v2 theirs.v2", "tls-crypt-v2 ours.server", V2),
    ("tls-crypt-v2 theirs.v2", "", V2),
    ("", "tls-crypt crypt.key", "it expects <tls-crypt> or <tls-auth>"),
)


@pytest.mark.parametrize("proto", UNSAID)
@pytest.mark.parametrize("keys", NOT_ITS_OWN, ids=lambda keys: " for ".join(keys[:2]))
@pytest.mark.usefixtures("hasty")
def test_a_wrong_key_of_the_control_channel_is_a_meaning_of_silence(
    pki: Pki, place: Room, server: Server, keys: tuple[str, str, str], proto: str
) -> None:
    """The server does not say so: it drops what it cannot read, or hangs up."""
    ours, theirs, doubt = keys
    server.control, server.proto = theirs, proto
    with running(server):
        place.begin(profile(pki, f"{SERVER} 1194 {proto}", control=ours))
        says(place, f"{UNSAID[proto]} {doubt} ({SERVER} port 1194/{proto})")
        server.wait_for("TLS Error")  # it was asked, and did not like it


def says(place: Room, cause: str) -> None:
    """Wait until that is the cause, while clients are shut in."""
    place.until(lambda: place.driver.trouble() == cause)
    assert place.trail == ["connecting"]
    assert place.is_cut_off(BEYOND)


@pytest.mark.parametrize(
    ("ours", "proto"),
    [("tls-crypt other.key", "tcp"), ("tls-auth auth.key 1", "udp")],
)
def test_an_answer_that_the_key_does_not_open_is_no_silence(
    pki: Pki, place: Room, server: Server, ours: str, proto: str
) -> None:
    """The server has no such key and answers in clear, which the daemon tells."""
    server.control, server.proto = "", proto
    with running(server):
        place.begin(profile(pki, f"{SERVER} 1194 {proto}", control=ours))
        wrong = "<tls-crypt> or <tls-auth> is not the server's"
        says(place, f"{wrong} ({SERVER} port 1194/{proto})")


@pytest.mark.parametrize(
    ("remote", "text"),
    [
        ("203.0.113.77 1194 udp", "the server cannot be reached"),
        ("2001:db8::1 1194 udp", "2001:db8::1 is of another IP version"),
    ],
)
def test_a_server_without_a_way_to_it_is_named_and_not_hurried_after(
    pki: Pki, place: Room, remote: str, text: str
) -> None:
    place.begin(profile(pki, remote))
    place.until(lambda: bool(place.driver.trouble()))
    place.until(lambda: place.driver.next_deadline() - time.monotonic() > 1.5)

    assert text in place.driver.trouble()
    assert place.trail == ["connecting"]
    assert place.turns < 400


@pytest.mark.parametrize(
    ("remote", "proto", "said"),
    [
        (f"{SERVER} 4", "tcp", ("the server refuses the connection", [1.0, 2.0])),
        (f"{SERVER} 4", "udp", ("the server refuses the connection", [2.0 + 1.0])),
        (f"{OTHER} 1194", "udp", ("the server does not answer", [2.0 + 1.0])),
    ],
)
@pytest.mark.usefixtures("hasty")
def test_a_server_that_is_not_there_is_not_hurried_after(
    pki: Pki, place: Room, remote: str, proto: str, said: tuple[str, list[float]]
) -> None:
    """Attempts are a pause apart that doubles, and a silent server's patience.

    The wire has no other than the driver counts; each has a port of its own.
    """
    (text, leasts), begun = said, list[float]()

    def is_seen() -> bool:
        enough = attempts(place, begun) > len(leasts)
        return enough and text in place.driver.trouble()

    outside = place.net("outside")
    with namespaces.inside(outside):
        mute = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        mute.bind((OTHER, 1194))
    with mute, Sniffer(outside, "wan") as seen:
        place.begin(profile(pki, f"{remote} {proto}"))
        place.until(is_seen)
    flows = {packet.source_port for packet in seen.packets if packet.port in (4, 1194)}

    gaps = [later - earlier for earlier, later in pairwise(begun)]
    assert all(gap >= least for gap, least in zip(gaps, leasts, strict=False))
    assert place.trail == ["connecting"]
    assert 1 <= len(flows) <= len(begun)
    assert place.turns < 400


def attempts(place: Room, begun: list[float]) -> int:
    """Return how many attempts there were; ``begun`` is when, by the driver."""
    latest = place.driver._begun
    if latest not in (math.inf, *begun[-1:]):
        begun.append(latest)
    return len(begun)


def test_a_wrong_password_is_named_and_not_said_again_soon(
    pki: Pki, place: Room, server: Server
) -> None:
    server.asks_login = True
    with running(server):
        text = profile(pki, f"{SERVER} 1194", more="auth-user-pass")
        place.begin(text, f"{USER}\nwrong\n".encode())
        place.until_state("error")

    trouble = place.driver.trouble()
    assert trouble == f"wrong user name or password ({SERVER} port 1194/udp)"
    assert place.facts.carried == frozenset()
    assert place.driver.next_deadline() - time.monotonic() > 30


@pytest.mark.usefixtures("steady")
def test_a_server_that_was_killed_is_found_again(
    pki: Pki, place: Room, server: Server
) -> None:
    """Meanwhile clients have no way out, and then they have it again, by itself."""
    with running(server):
        up(place, pki)
        server.kill()
        place.until_state("lost")
        assert place.facts.tunnel is None
        assert place.is_cut_off(BEYOND)
        server.start()
        place.until_state("up")

        assert place.reaches(BEYOND)
    assert place.trail == ["connecting", "up", "lost", "up"]


@pytest.mark.usefixtures("steady")
def test_what_a_server_gave_is_not_in_the_way_of_the_next_one(
    pki: Pki, place: Room, request: pytest.FixtureRequest
) -> None:
    """It gives us the address of the other: what goes there would stay here."""
    net = place.net("outside")
    given = ("mode server", "tls-server", "ifconfig 10.9.0.1 255.255.255.0")
    given += ('push "topology subnet"', f'push "ifconfig {OTHER} 255.255.255.255"')
    first = Server(pki, net, SERVER, inside=given)
    with running(Server(pki, net, OTHER, port=1195, more=DNS)):
        first.start()
        try:
            up(place, pki, f"{SERVER} 1194", f"{OTHER} 1195")
            shown = place.show(f"ip -o -4 address show dev {DEVICE}")
            assert any(OTHER in line for line in shown)
        finally:
            first.kill()
        # Not before: the first one has to be the one that it comes up by.
        request.getfixturevalue("hasty")
        place.until_state("lost")
        place.until_state("up")

        assert place.driver.report()["server"] == f"{OTHER} port 1195/udp"
        assert place.reaches(BEYOND)


@pytest.mark.usefixtures("steady")
def test_a_daemon_that_was_killed_comes_again(
    pki: Pki, place: Room, server: Server
) -> None:
    with running(server):
        up(place, pki)
        (pid,) = place.daemons()
        os.kill(pid, signal.SIGKILL)
        place.until_state("lost")
        place.until_state("up")

        assert place.daemons() != [pid]
        assert place.reaches(BEYOND)


@pytest.mark.usefixtures("steady")
def test_a_device_that_was_removed_comes_again(
    pki: Pki, place: Room, server: Server
) -> None:
    """The daemon would read from nothing without a pause; it is left."""
    with running(server):
        up(place, pki)
        (pid,) = place.daemons()
        place.ip(f"ip -n gateway link delete {DEVICE}")
        place.until_state("lost")
        place.until_state("up")

        assert place.daemons() != [pid]
        assert place.reaches(BEYOND)


def test_without_an_uplink_it_waits_and_goes_on_when_there_is_one(
    pki: Pki, place: Room, server: Server
) -> None:
    with running(server):
        up(place, pki)
        place.base = replace(FACTS, uplinks=())
        place.apply()
        assert place.course.state == "down"
        place.until(lambda: held(place))
        assert place.facts.carried == frozenset()
        place.base = FACTS
        place.apply()
        place.until_state("up")

        assert place.reaches(BEYOND)
    assert place.trail == ["connecting", "up", "down", "connecting", "up"]


@contextmanager
def replaced(place: Room) -> Iterator[None]:
    """Have the daemon stand still, and another one bring the tunnel up in the end."""
    (pid,) = place.daemons()
    with stilled(pid):
        yield
        place.until_state("up")
    assert pid not in place.daemons()


def hangs(place: Room) -> bool:
    return "not do as it is told" in place.driver.trouble()


def test_a_daemon_that_stands_still_when_the_uplink_goes_is_named_and_ended(
    pki: Pki, place: Room, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not hold as it is told, and would be waited for, for ever."""
    monkeypatch.setattr(openvpn_driver, "GRACE", 1.0)
    with running(server):
        up(place, pki)
        with replaced(place):
            for uplinks in ((), FACTS.uplinks):
                place.base = replace(FACTS, uplinks=uplinks)
                place.apply()
            place.until(lambda: hangs(place))

        assert place.driver.trouble() == ""


def test_a_daemon_that_stands_still_while_it_is_up_is_named_and_ended(
    pki: Pki, place: Room, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its device is there and its clients would wait; one that is idle stays."""
    monkeypatch.setattr(openvpn_daemon, "QUIET", 1.0)
    with running(server):
        up(place, pki)
        place.go_on(4)
        assert place.course.state == "up"
        with replaced(place):
            place.until_state("lost")
            place.until(lambda: hangs(place))


def test_a_daemon_that_stands_still_and_lost_its_device_is_ended(
    pki: Pki, place: Room, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is left at once, and does not notice."""
    monkeypatch.setattr(openvpn_daemon, "QUIET", 1.0)
    with running(server):
        up(place, pki)
        with replaced(place):
            place.ip(f"ip -n gateway link delete {DEVICE}")
            place.until_state("lost")

        assert place.reaches(BEYOND)


def held(place: Room) -> bool:
    session = place.daemon.session
    return session is not None and session.held


def test_a_daemon_ends_with_the_agent(pki: Pki, place: Room, server: Server) -> None:
    with running(server):
        up(place, pki)
        (pid,) = place.daemons()
        ended = os.pidfd_open(pid)
        place.door.close()
        assert select.select([ended], [], [], DEADLINE)[0]
        os.close(ended)


EVIL = (
    'push "dhcp-option DNS 203.0.113.1"',  # the server itself
    'push "dhcp-option DNS 203.0.113.77"',  # on the link of the uplink
    'push "dhcp-option DNS 10.137.0.5"',  # the client
    'push "dhcp-option DNS 127.0.0.1"',
    'push "route 203.0.113.0 255.255.255.0 net_gateway"',
    'push "route 10.137.0.0 255.255.0.0"',
    'push "redirect-gateway def1 bypass-dhcp"',
    'push "setenv-safe x y"',
    'push "tun-mtu 9000"',
)


def test_what_an_evil_server_pushes_changes_nothing_here(
    pki: Pki, place: Room, server: Server
) -> None:
    """No resolver outside of the tunnel, no route, no size that does not fit."""
    server.more = EVIL
    routes = place.show("ip route show table all")
    with running(server):
        up(place, pki, more="tun-mtu 9000")
        assert place.facts.dns == {}
        assert place.facts.tunnel is not None
        assert place.facts.tunnel.mtu == 1500 - 28 - 28
        assert "no resolver" in place.driver.trouble()
        now = place.show("ip route show table all")

    grown = {line for line in now - routes if "203.0.113" in line}
    assert not {line for line in grown if "dev eth0" not in line}
    assert not any("10.137.0.0/16" in line for line in now)


def test_a_server_that_pushes_very_many_routes_is_used(
    pki: Pki, place: Room, server: Server
) -> None:
    """Each is told to the agent in four variables, of which it needs none."""
    places = (f"10.{n // 256}.{n % 256}.0" for n in range(1500))
    routes = (f'push "route {each} 255.255.255.0"' for each in places)
    server.more = (*DNS, *routes)
    with running(server):
        up(place, pki)

        assert place.reaches(BEYOND)
        assert place.facts.dns == dict.fromkeys(VIRTUAL4, ip_address(INSIDE))


def test_a_bad_certificate_is_named_however_many_names_it_has(
    pki: Pki, place: Room, server: Server
) -> None:
    """They are all in the line of the daemon's log that says what is wrong."""
    pki.many_names("named")
    server.cert = "named"
    with running(server):
        place.begin(profile(pki, f"{SERVER} 1194"))
        cause = "the server's certificate is not of the authority in <ca>"
        says(place, f"{cause} ({SERVER} port 1194/udp)")


def test_an_address_that_is_a_clients_is_not_taken_from_a_server(
    pki: Pki, place: Room, server: Server
) -> None:
    """Who answers to it would get what is meant for the client."""
    server.inside = (
        "mode server",
        "tls-server",
        "ifconfig 10.137.0.1 255.255.255.0",
        "ifconfig-pool 10.137.0.5 10.137.0.6 255.255.255.0",
        'push "topology subnet"',
    )
    with running(server):
        place.begin(profile(pki, f"{SERVER} 1194"))
        place.until(lambda: bool(place.driver.trouble()))

    assert "the server gave 10.137.0.5, which is" in place.driver.trouble()
    assert place.trail == ["connecting"]


def test_the_address_of_the_server_is_not_taken_from_it(
    pki: Pki, place: Room, server: Server
) -> None:
    """The daemon's packets to it would not leave, and nobody know why."""
    server.inside = (
        "mode server",
        "tls-server",
        "ifconfig 10.9.0.1 255.255.255.0",
        'push "topology subnet"',
        f'push "ifconfig {SERVER} 255.255.255.0"',
    )
    with running(server):
        place.begin(profile(pki, f"{SERVER} 1194"))
        place.until(lambda: bool(place.driver.trouble()))

    assert f"the server gave {SERVER}, where it is itself" in place.driver.trouble()
    assert place.trail == ["connecting"]


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGHUP])
@pytest.mark.usefixtures("steady")
def test_a_daemon_that_begins_anew_asks_again_before_it_connects(
    pki: Pki, place: Room, server: Server, number: signal.Signals
) -> None:
    with running(server):
        up(place, pki)
        (pid,) = place.daemons()
        for _ in range(3):
            os.kill(pid, number)
            place.until_state("lost")
            assert place.is_cut_off(BEYOND)
            place.until_state("up")
            assert place.reaches(BEYOND)


def test_a_server_that_gives_ipv6_carries_it_too(
    pki: Pki, place: Room, server: Server
) -> None:
    """Without it, IPv6 of clients has no way out; see `rules.routing`."""
    server.more = ("server-ipv6 fd00:8::/64", 'push "dhcp-option DNS6 fd00:8::1"')
    with running(server):
        up(place, pki)

        assert place.facts.tunnel is not None
        assert len(place.facts.tunnel.own) == len(place.facts.tunnel.networks) == 2
        assert place.facts.resolvers == {ip_address("fd00:8::1")}
        # Its resolver is reached by the tunnel, from this domain too.
        routes = place.show("ip -6 route show")
        assert any(x.startswith("fd00:8::1 dev ovpn0") for x in routes)


@pytest.mark.usefixtures("hasty")
def test_a_tunnel_that_carries_nothing_is_not_used(
    pki: Pki, place: Room, server: Server
) -> None:
    """The daemon is content; the resolver in the tunnel never answers."""
    server.more = ('push "dhcp-option DNS 10.8.0.77"',)
    with running(server):
        place.begin(profile(pki, f"{SERVER} 1194"))
        cause = "connected, but nothing comes back through the tunnel"
        says(place, f"{cause} ({SERVER} port 1194/udp)")

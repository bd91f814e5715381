# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's WireGuard servers, with a wireguard-go that has read their profile."""

import threading
from base64 import b64decode
from collections.abc import Iterator
from ipaddress import ip_interface
from pathlib import Path

import pytest
from dns.exception import Timeout
from dns.message import make_query
from dns.query import udp

from controller import namespaces
from controller.lab import wires
from controller.lab.addresses import WEB
from controller.lab.exits import INSIDE
from controller.lab.hosts import run
from controller.lab.wireguard_server import (
    DEVICE,
    START,
    WireGuardServer,
    profile,
    tell,
)
from controller.platforms.lab import Internet
from tests.lab.pages import NOBODY, seen_by
from tests.lab.routed import ip

pytestmark = pytest.mark.kernel

ROUTES = f"""
route add {WEB[0]} dev {DEVICE}
route add {WEB[1]} dev {DEVICE}
route add 10.64.0.0/24 dev {DEVICE}
route add fd64::/64 dev {DEVICE}
"""


@pytest.fixture(scope="module")
def internet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    made = Internet(tmp_path_factory.mktemp("lab"))
    made.up()
    yield made
    made.down()


@pytest.fixture(scope="module")
def servers(internet: Internet) -> tuple[WireGuardServer, WireGuardServer]:
    one, other = WireGuardServer(internet.hosts), WireGuardServer(internet.hosts, 1)
    one.up()
    other.up()
    return one, other


@pytest.fixture
def net(internet: Internet, tmp_path: Path) -> Iterator[Path]:
    made = tmp_path / "net"
    namespaces.create(made)
    internet.attach(made)
    yield made
    namespaces.kill_all(made)
    namespaces.remove(made)


def connect(net: Path, text: str) -> int:
    """Do what a profile with one peer says, but route the lab alone; return the pid."""
    told = dict(line.split(" = ", 1) for line in text.splitlines() if " = " in line)
    run(net, "unshare", "--mount", "sh", "-c", START)
    with namespaces.inside(net):
        wires.configure(DEVICE, map(ip_interface, told["Address"].split(", ")))
    ip(net, ROUTES)
    (pid,) = namespaces.processes(net)
    tell(
        pid,
        f"private_key={b64decode(told['PrivateKey']).hex()}",
        f"public_key={b64decode(told['PublicKey']).hex()}",
        f"preshared_key={b64decode(told['PresharedKey']).hex()}",
        f"endpoint={told['Endpoint']}",
        *(f"allowed_ip={each}" for each in told["AllowedIPs"].split(", ")),
    )
    return pid


@pytest.mark.parametrize("which", [0, 1])
def test_a_site_sees_the_server_through_which_one_came(
    servers: tuple[WireGuardServer, WireGuardServer], net: Path, which: int
) -> None:
    """Control: without the tunnel it sees the NetVM."""
    without = [seen_by(site, net) for site in WEB]
    connect(net, profile(servers[which]))
    exits = [str(each) for each in servers[which].host.exits]
    assert [seen_by(site, net) for site in WEB] == exits
    assert NOBODY not in without
    assert not set(without) & set(exits)


def test_the_resolvers_are_in_the_tunnel_and_nowhere_else(
    servers: tuple[WireGuardServer, WireGuardServer], net: Path
) -> None:
    question = make_query(INSIDE, "A")
    host = servers[0].host
    ip(net, f"route add {host.resolvers[0]} via {host.exits[0]} dev eth0 onlink")
    with namespaces.inside(net), pytest.raises(Timeout):
        udp(question, str(host.resolvers[0]), timeout=1)
    ip(net, f"route del {host.resolvers[0]}")
    connect(net, profile(servers[0]))
    for resolver in host.resolvers:
        with namespaces.inside(net):
            reply = udp(question, str(resolver), timeout=20)
        assert str(host.resolvers[0]) in reply.to_text()
        with namespaces.inside(net):
            assert udp(
                make_query("www.example.com", "A"), str(resolver), timeout=20
            ).answer
    assert f"query[A] {INSIDE} from 10.64.0.2" in host.asked.read_text()


def test_a_server_that_was_killed_can_be_started_again(
    servers: tuple[WireGuardServer, WireGuardServer], net: Path
) -> None:
    connect(net, profile(servers[0]))
    assert seen_by(WEB[0], net) == str(servers[0].host.exits[0])
    servers[0].kill()
    assert seen_by(WEB[0], net, patience=1) == NOBODY
    servers[0].start()
    # The client would notice by itself, after some 15 s.
    namespaces.kill_all(net)
    connect(net, profile(servers[0]))
    assert seen_by(WEB[0], net) == str(servers[0].host.exits[0])


def test_a_server_keeps_no_namespace_alive(
    servers: tuple[WireGuardServer, WireGuardServer], net: Path
) -> None:
    """Control: here they are mounted."""
    pid = connect(net, profile(servers[0]))
    assert " nsfs " in Path("/proc/self/mountinfo").read_text()
    assert " nsfs " not in Path("/proc", str(pid), "mountinfo").read_text()


def test_a_profile_for_both_has_a_peer_for_each(
    servers: tuple[WireGuardServer, WireGuardServer],
) -> None:
    both = profile(*servers)
    assert both.count("[Interface]") == 1
    assert both.startswith(servers[0].interface)
    assert [line for line in both.splitlines() if line.startswith("Endpoint")] == [
        "Endpoint = 203.0.113.31:51820",
        "Endpoint = 203.0.113.32:51820",
    ]


def test_a_server_starts_while_namespaces_of_others_end(
    servers: tuple[WireGuardServer, WireGuardServer], tmp_path: Path
) -> None:
    """Their mounts are gone between being listed and being taken away."""
    others = [tmp_path / str(number) for number in range(100)]
    for other in others:
        namespaces.create(other)
    for server in servers:
        server.kill()

    ending = threading.Thread(target=lambda: [*map(namespaces.remove, others)])
    ending.start()
    for server in servers:
        server.start()
    ending.join()

    assert [len(server.host.pids("wireguard-go")) for server in servers] == [1, 1]

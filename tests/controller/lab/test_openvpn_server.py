# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's OpenVPN servers, with a real openvpn that has read their profile."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dns.message import make_query
from dns.query import udp

from controller import namespaces
from controller.lab.addresses import WEB
from controller.lab.exits import INSIDE
from controller.lab.openvpn_server import (
    AUTH,
    EXPIRED,
    TCP,
    TCP_PASSWORD,
    UDP,
    UDP_PASSWORD,
    Kind,
    OpenVpnServer,
    profile,
)
from controller.platforms.lab import Internet
from tests.lab.pages import NOBODY, seen_by

pytestmark = pytest.mark.kernel

CONNECTED = "Initialization Sequence Completed"


@pytest.fixture(scope="module")
def internet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    made = Internet(tmp_path_factory.mktemp("lab"))
    made.up()
    yield made
    made.down()


@pytest.fixture
def net(internet: Internet, tmp_path: Path) -> Iterator[Path]:
    made = tmp_path / "net"
    namespaces.create(made)
    internet.attach(made)
    yield made
    namespaces.kill_all(made)
    namespaces.remove(made)


@contextmanager
def client(net: Path, text: str, auth: str = AUTH) -> Iterator[Iterator[str]]:
    """Run openvpn with a profile; what it says, line by line, ends when it does."""
    config, words = net.parent / "provider.ovpn", net.parent / "auth"
    config.write_text(text)
    words.write_text(auth)
    words.chmod(0o600)
    argv = ["openvpn", "--config", str(config), "--disable-dco", "--tls-exit"]
    argv += ["--connect-retry-max", "1", "--connect-timeout", "60"]
    if "auth-user-pass\n" in text:
        argv += ["--auth-user-pass", str(words)]
    with (
        namespaces.inside(net),
        subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as running,
    ):
        assert running.stdout
        yield iter(running.stdout)
        running.kill()


def hear(lines: Iterator[str], wanted: str) -> str:
    """Return the first line that has it; only a client that ended never says it."""
    return next((line for line in lines if wanted in line), "")


@pytest.mark.parametrize(
    "kind", [UDP, TCP, UDP_PASSWORD, TCP_PASSWORD], ids=lambda kind: kind.name
)
def test_a_site_sees_the_server_and_names_are_known_inside(
    internet: Internet, net: Path, kind: Kind
) -> None:
    """Control: without the tunnel it sees the NetVM."""
    server = OpenVpnServer(internet.hosts, kind)
    server.up()
    without = [seen_by(site, net) for site in WEB]
    with client(net, profile(server)) as lines:
        assert hear(lines, CONNECTED)
        exits = [str(each) for each in server.host.exits]
        assert [seen_by(site, net) for site in WEB] == exits
        for resolver in server.host.resolvers:
            with namespaces.inside(net):
                reply = udp(make_query(INSIDE, "A"), str(resolver), timeout=20)
            assert str(server.host.resolvers[0]) in reply.to_text()
    assert NOBODY not in without
    assert not set(without) & set(exits)


@pytest.mark.parametrize(
    ("auth", "said"), [(AUTH, CONNECTED), ("somebody\nwrong\n", "AUTH_FAILED")]
)
def test_a_wrong_password_is_refused(
    internet: Internet, net: Path, auth: str, said: str
) -> None:
    server = OpenVpnServer(internet.hosts, UDP_PASSWORD)
    server.up()
    with client(net, profile(server), auth) as lines:
        assert hear(lines, said)


def test_a_client_finds_the_certificate_of_one_server_expired(
    internet: Internet, net: Path
) -> None:
    server = OpenVpnServer(internet.hosts, EXPIRED)
    server.up()
    with client(net, profile(server)) as lines:
        assert hear(lines, "certificate has expired")


def test_a_server_that_was_killed_can_be_started_again(
    internet: Internet, net: Path
) -> None:
    server = OpenVpnServer(internet.hosts, TCP)
    server.up()
    with client(net, profile(server)) as lines:
        assert hear(lines, CONNECTED)
        server.kill()
    server.start()
    with client(net, profile(server)) as lines:
        assert hear(lines, CONNECTED)
        assert seen_by(WEB[0], net) == str(server.host.exits[0])


def test_a_profile_for_several_servers_names_all_of_them(internet: Internet) -> None:
    servers = [OpenVpnServer(internet.hosts, kind) for kind in (UDP, TCP)]
    text = profile(*servers)
    assert text.startswith(
        "remote 203.0.113.41 1194 udp\nremote 203.0.113.42 443 tcp\n"
    )
    assert text.count("<ca>") == 1

# SPDX-License-Identifier: GPL-2.0-or-later
"""The private Tor network of the lab, as a client of the real tor finds it."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest

from controller import namespaces
from controller.lab import hosts, wires
from controller.lab.addresses import remote
from controller.lab.hosts import run
from controller.lab.tor_network import TorNetwork
from controller.lab.tor_ready import fetched
from controller.lab.torrc import NUMBERS
from controller.platforms.lab import Internet
from controller.ports import PlatformError
from tests.lab.sniffer import Sniffer
from tests.lab.tor_network import RETRY, TorLab

pytestmark = pytest.mark.kernel

PATIENCE = 120.0  # seconds; only a failing test waits that long
TORRC = """
ClientOnly 1
DataDirectory {folder}
ControlSocket {folder}/control
CookieAuthentication 0
SocksPort unix:{folder}/socks
Log notice file {folder}/log
GeoIPFile /dev/null
GeoIPv6File /dev/null
RunAsDaemon 1
"""
RELAYED = {str(each) for number in NUMBERS.values() for each in remote(number)}


@dataclass(frozen=True, slots=True)
class Client:
    """A tor in a NetVM of its own; ``seen`` is what its cable carries."""

    folder: Path
    net: Path
    seen: Sniffer

    def get(self, url: str) -> str:
        socks = f"socks5h://localhost{self.folder}/socks"
        with namespaces.inside(self.net):
            done = subprocess.run(
                ["curl", "-sS", "--max-time", "60", *RETRY, "--proxy", socks, url],
                capture_output=True,
                text=True,
                check=True,
            )
        return done.stdout.strip()


@contextmanager
def client(lab: TorLab, folder: Path, lines: str = "") -> Iterator[Client]:
    folder.chmod(0o700)
    net = folder / "net"
    namespaces.create(net)
    with namespaces.inside(net):
        wires.configure("lo", ())  # where tor meets its transport
    try:
        torrc = folder / "torrc"
        torrc.write_text(lab.network.options + TORRC.format(folder=folder) + lines)
        with Sniffer(lab.internet.net, lab.internet.attach(net)) as seen:
            run(net, "tor", "--quiet", "--defaults-torrc", "/dev/null", "-f", torrc)
            fetched(folder, "www.example.com", time.monotonic() + PATIENCE)
            yield Client(folder, net, seen)
            namespaces.kill_all(net)
    finally:
        namespaces.kill_all(net)
        namespaces.remove(net)


@pytest.fixture(scope="module")
def anon(
    tor_network: TorLab, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    with client(tor_network, tmp_path_factory.mktemp("anon")) as made:
        yield made


@pytest.mark.parametrize("name", ["v4only.example.com", "v6only.example.com"])
def test_a_site_sees_the_address_of_an_exit(
    tor_network: TorLab, anon: Client, name: str
) -> None:
    seen = ip_address(anon.get(f"http://{name}/ip"))
    assert seen in tor_network.network.exits
    assert seen.version == (4 if name.startswith("v4") else 6)


def test_the_onion_service_answers_by_its_own_name(
    tor_network: TorLab, anon: Client
) -> None:
    onion = tor_network.network.onion
    assert anon.get(f"http://{onion}/").endswith(f"host {onion}")
    assert anon.get(f"http://{onion}/ip") == str(remote(NUMBERS["onion"])[0])


def test_a_client_with_a_bridge_speaks_to_nobody_else(
    tor_network: TorLab, tmp_path: Path
) -> None:
    """Positive control: without it, the authorities and relays are asked."""
    lines = (
        "UseBridges 1\n"
        f"Bridge {tor_network.network.bridge}\n"
        "ClientTransportPlugin obfs4 exec /usr/bin/obfs4proxy\n"
    )
    peers = {}
    for name, more in (("plain", ""), ("bridged", lines)):
        (tmp_path / name).mkdir()
        with client(tor_network, tmp_path / name, more) as made:
            assert made.get("http://www.example.com/ip")
        peers[name] = {str(p.destination) for p in made.seen.packets if p.port}
    bridge = str(remote(NUMBERS["bridge"])[0])
    assert peers["bridged"] & RELAYED == {bridge}
    assert bridge not in peers["plain"]
    assert peers["plain"] & RELAYED


def test_another_process_finds_the_network_again(tor_network: TorLab) -> None:
    again = TorNetwork(tor_network.internet.hosts)
    assert again.ready
    assert again.network() == tor_network.network


def test_an_internet_without_a_tor_network_says_so(tmp_path: Path) -> None:
    assert not TorNetwork(Internet(tmp_path).hosts).ready


def test_a_missing_program_is_named_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    internet = Internet(tmp_path)
    internet.up()
    try:
        monkeypatch.setattr(hosts, "PROGRAMS", str(tmp_path))
        tors = TorNetwork(internet.hosts)
        with pytest.raises(PlatformError, match="tor-gencert is not installed"):
            tors.up()
        assert not tors.ready
    finally:
        internet.down()
    assert not list(tmp_path.iterdir())

# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest with nothing of ours in it asks for its addresses, and has them.

The guests are namespaces whose ``eth0`` was stripped of all that the platform
gave it; what they run are busybox's udhcpc and dhcpcd, as any system would.
"""

import json
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from controller import namespaces
from tests.agent.test_dhcp import DISCOVER, MAC, REQUEST, question, read
from tests.agent.test_dhcp6 import (
    IA_NA,
    ME,
    SOLICIT,
    association,
    given_in,
    split,
)
from tests.agent.test_dhcp6 import question as question6
from tests.leaks.chain import Chain, appvm, running

pytestmark = pytest.mark.kernel

PATIENCE = 20.0  # seconds; only a failing test waits that long
SERVER, SERVER6 = "198.51.100.80", "2001:db8:80::80"
# What dom0 gave, taken away; then the defaults of a Linux that asks.
STRIP = """
ip addr flush dev eth0
ip route flush dev eth0
ip neigh flush dev eth0
ip link set eth0 down
"""
DEFAULTS = {"addr_gen_mode": 0, "accept_ra": 1, "router_solicitations": -1}
# Hears what our own chains of input let in from who has no address.
JUDGE = """
table ip judge {
    chain input {
        type filter hook input priority filter + 1
        ip saddr 0.0.0.0 counter comment "arrived"
    }
}
"""
SCRIPT = "#!/bin/sh\necho $1 $ip/$mask $router '|' $dns '|' $staticroutes\n"
# dhcpcd(8) writes below /run and /var, and would change resolv.conf.
DHCPCD = """
mount -t tmpfs none /run
mount -t tmpfs none /var/lib/dhcpcd
dhcpcd -4 -1 -B -c /bin/true -t 60 eth0
dhcpcd -6 -1 -B -c /bin/true -t 60 eth0
"""


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    with running(appvm("guest"), appvm("other")) as made:
        made.run("sys-firewall", "nft", "-f", "-", feed=JUDGE)
        yield made


@pytest.fixture
def guest(chain: Chain) -> Chain:
    """A chain whose ``guest`` has no address yet."""
    strip(chain, "guest")
    # It may ask for one 20 times at once, whatever it has asked before.
    chain.run("sys-firewall", "nft", "flush set ip qubes asking")
    return chain


def strip(chain: Chain, domain: str) -> None:
    for line in STRIP.strip().splitlines():
        chain.run(domain, *line.split())
    with namespaces.inside(chain.net(domain)):
        for key, value in DEFAULTS.items():
            Path(f"/proc/sys/net/ipv6/conf/eth0/{key}").write_text(str(value))
    chain.run(domain, "ip", "link", "set", "eth0", "up")


def udhcpc(chain: Chain, folder: Path, *words: str) -> list[str]:
    script = folder / "script"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    begin = ("busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-s", str(script))
    said = chain.run("guest", *begin, "-t", "10", *words).splitlines()
    return [line for line in said if line.startswith("bound")]


def test_udhcpc_is_bound_to_the_planned_address(guest: Chain, tmp_path: Path) -> None:
    (ip, _), (gateway, _) = guest.ip("guest"), guest.ip("sys-firewall")

    (bound,) = udhcpc(guest, tmp_path, "-O", "121")
    address, resolvers, routes = bound.split(" | ")

    assert address == f"bound {ip}/32 {gateway}"
    assert resolvers == "10.139.1.1 10.139.1.2"
    assert routes == f"{gateway}/32 0.0.0.0 0.0.0.0/0 {gateway}"


def test_udhcpc_does_not_get_an_address_because_it_asks(
    guest: Chain, tmp_path: Path
) -> None:
    other = guest.ip("other")[0]
    bound = udhcpc(guest, tmp_path, "-r", str(other))

    assert [line.split()[1] for line in bound] == [f"{guest.ip('guest')[0]}/32"]


def test_dhcpcd_configures_both_versions_and_all_works(guest: Chain) -> None:
    """RFC 4861 and RFC 8415: IPv6 too ends with the one planned address."""
    (ip, ip6), (gateway, _) = guest.ip("guest"), guest.ip("sys-firewall")
    fetch = ("curl", "--silent", "--show-error", "--max-time", "10")
    guest.run("guest", "unshare", "--mount", "sh", "-ec", DHCPCD)

    shown = json.loads(guest.run("guest", "ip", "-j", "addr", "show", "eth0"))
    routes = [
        guest.run("guest", "ip", version, "route", "show", "default")
        for version in ("-4", "-6")
    ]
    assert {
        (x["local"], x["prefixlen"])
        for x in shown[0]["addr_info"]
        if x["scope"] == "global"
    } == {(str(ip), 32), (str(ip6), 128)}
    assert f"default via {gateway} dev eth0" in routes[0]
    assert "default via fe80::fcff:ffff:feff:ffff dev eth0" in routes[1]
    assert SERVER in guest.run("guest", *fetch, f"http://{SERVER}/")
    assert SERVER6 in guest.run("guest", *fetch, f"http://[{SERVER6}]/")
    asked = ("dig", "+short", "@10.139.1.1", "www.example.com")
    assert guest.run("guest", *asked).strip() == SERVER


@dataclass
class Asker:
    """A socket of a client that has no address."""

    chain: Chain
    domain: str
    socket: socket.socket

    def ask(self, message: bytes, to: tuple[str, int]) -> bytes:
        """Ask again and again, as clients do; return the first answer."""
        deadline, asked = time.monotonic() + PATIENCE, 0
        while time.monotonic() < deadline:
            with suppress(OSError):  # its own address may still be in doubt
                self.socket.sendto(message, to)
            asked += 1
            if select.select([self.socket], [], [], 1.0)[0]:
                answer = self.socket.recv(2048)
                if asked > 1:  # what else comes is no answer to the next question
                    self.drain()
                return answer
        raise AssertionError("no answer")

    def drain(self) -> list[bytes]:
        """Return what came by now."""
        found = []
        while select.select([self.socket], [], [], 0.3)[0]:
            found.append(self.socket.recv(2048))
        return found


Open = Callable[..., Asker]
BROADCAST = ("255.255.255.255", 67)


@pytest.fixture
def opened(chain: Chain) -> Iterator[Open]:
    made: list[socket.socket] = []

    def open_in(
        domain: str, port: int = 68, version: int = socket.AF_INET, address: str = ""
    ) -> Asker:
        with namespaces.inside(chain.net(domain)):
            mine = socket.socket(version, socket.SOCK_DGRAM)
            made.append(mine)
            mine.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            mine.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
            mine.bind((address, port))
        return Asker(chain, domain, mine)

    yield open_in
    for each in made:
        each.close()


def kind_and_address(message: bytes) -> tuple[int, str]:
    return read(message)[53][0], str(IPv4Address(message[16:20]))


OFFER, ACK, NAK = 2, 5, 6


def test_the_address_of_another_client_is_refused(guest: Chain, opened: Open) -> None:
    """The vif decides, not what is said by it; the control is its own address."""
    own, other = (guest.ip(name)[0] for name in ("guest", "other"))
    asker = opened("guest")
    found = [
        kind_and_address(asker.ask(question(kind, {50: asked.packed}), BROADCAST))
        for kind, asked in ((DISCOVER, other), (REQUEST, other), (REQUEST, own))
    ]

    assert found == [(OFFER, str(own)), (NAK, "0.0.0.0"), (ACK, str(own))]


def test_a_lease_is_renewed_from_the_address_itself(guest: Chain, opened: Open) -> None:
    """RFC 2131, 4.4.5: asked of the server alone, and answered to the address."""
    own, gateway = guest.ip("guest")[0], guest.ip("sys-firewall")[0]
    guest.run("guest", "ip", "address", "add", f"{own}/32", "dev", "eth0")
    guest.run("guest", "ip", "route", "add", str(gateway), "dev", "eth0")
    asker = opened("guest", 68, address=str(own))
    said = asker.ask(question(REQUEST, has=own), (str(gateway), 67))

    assert kind_and_address(said) == (ACK, str(own))


@pytest.mark.usefixtures("guest")
def test_another_mac_address_is_not_answered(opened: Open) -> None:
    asker = opened("guest")
    asker.socket.sendto(question(DISCOVER, mac=b"\x02" * 6), BROADCAST)

    answers = [asker.ask(question(DISCOVER), BROADCAST), *asker.drain()]

    assert {kind_and_address(each)[0] for each in answers} == {OFFER}
    assert {each[28:34] for each in answers} == {MAC}


def test_ipv6_of_another_client_is_refused_too(guest: Chain, opened: Open) -> None:
    own, other = (guest.ip(name)[1] for name in ("guest", "other"))
    asker = opened("guest", 546, socket.AF_INET6)
    asked = question6(SOLICIT, ME, association(other))
    said = asker.ask(asked, ("ff02::1:2", 547))

    assert given_in(dict(split(said[4:]))[IA_NA]) == {own: 3600, other: 0}


def arrived(chain: Chain) -> int:
    return chain.counted("sys-firewall")["arrived"]


@pytest.mark.parametrize(
    ("port", "to", "passes"),
    [
        (68, ("255.255.255.255", 67), True),
        (69, ("255.255.255.255", 67), False),
        (68, ("255.255.255.255", 53), False),
        (68, ("255.255.255.255", 68), False),
    ],
)
def test_nothing_else_comes_from_a_client_without_an_address(
    guest: Chain, opened: Open, port: int, to: tuple[str, int], *, passes: bool
) -> None:
    asker = opened("guest", port)
    last = asker if port == 68 else opened("guest")
    last.ask(question(DISCOVER), BROADCAST)
    before = arrived(guest)
    for _ in range(10):
        asker.socket.sendto(question(DISCOVER), to)
    # What follows comes after it through the same queue.
    last.ask(question(DISCOVER), BROADCAST)

    assert (arrived(guest) - before > 10) is passes


def test_a_flood_is_slowed_down_and_takes_nothing_from_others(
    guest: Chain, opened: Open
) -> None:
    """20 at once and 5 a second are answered, for each vif."""
    strip(guest, "other")
    flooder, other = opened("guest"), opened("other")
    begin = time.monotonic()
    for _ in range(3000):
        flooder.socket.sendto(question(DISCOVER), BROADCAST)
    answered = kind_and_address(other.ask(question(DISCOVER), BROADCAST))
    answers = flooder.drain()
    seconds = time.monotonic() - begin

    assert answered == (OFFER, str(guest.ip("other")[0]))
    assert 0 < len(answers) <= 20 + 5 * (seconds + 1)


def test_a_new_agent_knows_every_lease(guest: Chain, opened: Open) -> None:
    """There is no memory that could be lost; the one who renews has its address."""
    own = guest.ip("guest")[0]
    asker = opened("guest")
    asker.ask(question(REQUEST, {50: own.packed}), BROADCAST)
    guest.kill("sys-firewall", signal.SIGKILL)

    found = asker.ask(question(REQUEST, {50: own.packed}), BROADCAST)
    assert kind_and_address(found) == (ACK, str(own))


@pytest.mark.usefixtures("guest")
def test_the_network_outside_is_not_answered(opened: Open) -> None:
    """Only vifs are; the control is a client, whose question is the same."""
    outside = opened("sys-net", 68)
    for _ in range(3):
        outside.socket.sendto(question(DISCOVER), BROADCAST)
    asker = opened("guest")

    assert kind_and_address(asker.ask(question(DISCOVER), BROADCAST))[0] == OFFER
    assert outside.drain() == []


def test_an_agent_keeps_the_one_right_that_it_needs(chain: Chain) -> None:
    """CAP_NET_ADMIN is 12; what it answers clients by it has by then."""
    status = Path(f"/proc/{chain.agent('sys-firewall')}/status").read_text()
    rights = dict(x.split(":\t") for x in status.splitlines() if x.startswith("Cap"))

    for each in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(rights[each], 16) == 1 << 12, each

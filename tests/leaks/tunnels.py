# SPDX-License-Identifier: GPL-2.0-or-later
"""The two kinds of VPN behind one face, for attacks that are the same on both."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from controller import namespaces
from tests.e2e import openvpn_room, wireguard_room
from tests.e2e.machine import Machine, stilled, until
from tests.e2e.vpn_room import OTHER_END, PATIENCE, PROVIDER
from tests.lab.ends import MARKER
from tests.lab.scene import Scene
from tests.lab.sniffer import Packet, Sniffer
from tests.vpn.openvpn_server import Server

WEB4, WEB6, ELSEWHERE = "198.51.100.80", "2001:db8:80::80", "192.0.2.66"
FLOOD = f"""
import socket, time
to = [("{WEB4}", 4433), ("9.9.9.9", 53), ("{ELSEWHERE}", 4433)]
to += [("{PROVIDER}", port) for port in (51820, 1194)]
four = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
while True:
    for each in to:
        try:
            four.sendto({MARKER!r}, each)
        except OSError:
            pass
    try:
        six.sendto({MARKER!r}, ("{WEB6}", 4433))
    except OSError:
        pass
    time.sleep(0.004)
"""


Room = openvpn_room.Room | wireguard_room.Room


@dataclass(frozen=True)
class Vpn:
    """A room with its tunnel up.

    ``device`` is the tunnel's in the gateway and ``far`` the one of its server;
    ``own`` is whom the clients are taken for behind it, ``port`` the server's.
    ``elsewhere`` is how `give_good` is told of another server.
    """

    kind: str
    room: Room
    device: str
    far: str
    own: str
    port: int
    elsewhere: str
    leaked: Callable[[Sniffer], list[Packet]]
    tunnelled: Callable[[Sniffer], list[Packet]]

    @property
    def machine(self) -> Machine:
        return self.room.machine

    @property
    def vif(self) -> str:
        """The VPN's interface in its netvm."""
        return uplink_port(self.room)

    def scene(self, client: str = "work", other: str = "personal") -> Scene:
        row = self.machine.status()
        return Scene(
            client=str(row[client]["ip"]),
            client6=str(row[client]["ip6"]),
            gateway=str(row["sys-vpn"]["ip"]),
            gateway6=str(row["sys-vpn"]["ip6"]),
            server=WEB4,
            server6=WEB6,
            other=str(row[other]["ip"]),
            other6=str(row[other]["ip6"]),
            uplink=str(row["sys-net"]["ip"]),
            uplink6=str(row["sys-net"]["ip6"]),
        )


# A client of the NetVM itself, which shares nothing with the tunnel but the way out,
# and a second NetVM, which keeps the internet there while the first one restarts.
EVIL = """
[domains.evil]
netvm = "sys-net"
[domains.sys-net2]
personality = "netvm"
uplink = "lab"
"""


@contextmanager
def wireguard() -> Iterator[Vpn]:
    """Have a tunnel of WireGuard; its server listens at both ends."""
    at = wireguard_room
    with at.room(at.POLICY + EVIL) as made, _up(made):
        made.answers_from_where_it_is_asked()
        names = "wireguard", made, "wg0", "wgs0", at.IN_TUNNEL
        yield Vpn(*names, 51820, OTHER_END, at.leaked, at.tunnelled)


@contextmanager
def openvpn() -> Iterator[Vpn]:
    """Have a tunnel of OpenVPN, and another server at the other end."""
    at, port = openvpn_room, openvpn_room.PORT
    with at.room(at.POLICY + EVIL) as made:
        more = ('push "dhcp-option DNS 10.9.0.1"',)
        inside = ("server 10.9.0.0 255.255.255.0",)
        place = made.machine.internet.net, OTHER_END, port + 1
        other = Server(made.pki, *place, more=more, inside=inside)
        other.start()
        try:
            with _up(made):
                names = "openvpn", made, "ovpn0", f"ovpns{port}", at.IN_TUNNEL
                elsewhere = f"{OTHER_END} {port + 1} udp"
                yield Vpn(*names, port, elsewhere, at.leaked, at.tunnelled)
        finally:
            other.kill()


@contextmanager
def _up(made: Room) -> Iterator[None]:
    made.give_good()
    made.machine.up()
    made.comes_up()
    # Clients that may do everything leave it all to the layers below.
    for client in ("work", "personal"):
        made.machine.does("firewall", client, "reset")
    yield
    made.machine.does("down")


def flows(vpn: Vpn) -> None:
    """Wait until a client gets out by the tunnel."""
    until(vpn.room.flows, PATIENCE * 3, vpn.machine.status)


def tool(made: Room, words: str) -> str:
    """Run a tool of the judge in the VPN."""
    return made.machine.tool("sys-vpn", *words.split())


def uplink_port(made: Room) -> str:
    """Return the vif of the VPN in its netvm."""
    gateway = made.machine.status()["sys-vpn"]["ip"]
    shown = made.machine.tool("sys-net", "ip", "-4", "route", "get", str(gateway))
    words = shown.split()
    return words[words.index("dev") + 1]


@contextmanager
def flood(made: Room) -> Iterator[None]:
    """Send from both clients, all the time."""
    floods = []
    for domain in ("work", "personal"):
        with namespaces.inside(made.machine.net(domain)):
            floods.append(subprocess.Popen([sys.executable, "-c", FLOOD]))
    try:
        yield
    finally:
        for each in floods:
            each.kill()
            each.wait()


@contextmanager
def bare(made: Room) -> Iterator[None]:
    """Take away all that protects; the agent stands still, or it would heal."""
    with stilled(made.agent()):
        before = routes(made)
        tool(made, "nft flush ruleset")
        for version in ("-4", "-6"):
            for line in tool(made, f"ip {version} rule").splitlines():
                priority = int(line.partition(":")[0])
                if 0 < priority < 32766:
                    tool(made, f"ip {version} rule delete pref {priority}")
        yield
        if routes(made) != before:
            # What was put there goes, and the agent gives its own back.
            tool(made, "ip link set eth0 down")
            tool(made, "ip link set eth0 up")


def routes(made: Room) -> str:
    """Return what a table leads to, and which link-layer addresses are known."""
    shown = (tool(made, f"ip {words}") for words in ("route", "-6 route"))
    return "".join(shown) + tool(made, "ip neighbour show nud permanent")


@contextmanager
def kept_ports(made: Machine, domain: str, agent: int) -> Iterator[None]:
    """Have a gateway translate addresses and leave source ports as they are.

    It is what a gateway does that was not told otherwise.
    """
    with stilled(agent):
        before = made.tool(domain, "nft", "list", "ruleset")
        plain = before.replace("masquerade random,fully-random", "masquerade")
        assert plain != before, before
        load(made, domain, plain)
        yield
        load(made, domain, before)


def load(made: Machine, domain: str, text: str) -> None:
    """Put a ruleset in the place of another."""
    with namespaces.inside(made.net(domain)):
        feed = f"flush ruleset\n{text}"
        subprocess.run(["nft", "-f", "-"], input=feed, text=True, check=True)

# SPDX-License-Identifier: GPL-2.0-or-later
"""The two kinds of VPN behind one face, for attacks that are the same on both."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from controller import namespaces
from tests.e2e import openvpn_room, wireguard_room
from tests.e2e.machine import Machine, stilled
from tests.lab.ends import MARKER
from tests.lab.scene import Scene
from tests.lab.sniffer import Packet, Sniffer

WEB4, WEB6, ELSEWHERE = "198.51.100.80", "2001:db8:80::80", "192.0.2.66"
PROVIDER = "192.0.2.1"
FLOOD = f"""
import socket, time
to = [("{WEB4}", 4433), ("9.9.9.9", 53), ("{PROVIDER}", 51820), ("{ELSEWHERE}", 4433)]
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


class Room(Protocol):
    """A machine whose AppVMs share a tunnel."""

    machine: Machine

    def flows(self) -> bool: ...
    def agent(self) -> int: ...
    def daemon(self) -> int: ...
    def sniffer(self) -> Sniffer: ...


@dataclass(frozen=True)
class Vpn:
    """A room with its tunnel up.

    ``device`` is the tunnel's in the gateway and ``far`` the one of its server;
    ``own`` is whom the clients are taken for behind it, ``port`` the server's.
    """

    room: Room
    device: str
    far: str
    own: str
    port: int
    leaked: Callable[[Sniffer], list[Packet]]

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
    """Have a tunnel of WireGuard."""
    with wireguard_room.room(wireguard_room.POLICY + EVIL) as made:
        made.give_good()
        leaked = wireguard_room.leaked
        with _up(made):
            yield Vpn(made, "wg0", "wgs0", wireguard_room.IN_TUNNEL, 51820, leaked)


@contextmanager
def openvpn() -> Iterator[Vpn]:
    """Have a tunnel of OpenVPN."""
    with openvpn_room.room(openvpn_room.POLICY + EVIL) as made:
        made.give_good()
        port, leaked = openvpn_room.PORT, openvpn_room.leaked
        far, own = f"ovpns{port}", openvpn_room.IN_TUNNEL
        with _up(made):
            yield Vpn(made, "ovpn0", far, own, port, leaked)


@contextmanager
def _up(made: wireguard_room.Room | openvpn_room.Room) -> Iterator[None]:
    made.machine.up()
    made.comes_up()
    # Clients that may do everything leave it all to the layers below.
    for client in ("work", "personal"):
        made.machine.does("firewall", client, "reset")
    yield
    made.machine.does("down")


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
        tool(made, "nft flush ruleset")
        for version in ("-4", "-6"):
            for line in tool(made, f"ip {version} rule").splitlines():
                priority = int(line.partition(":")[0])
                if 0 < priority < 32766:
                    tool(made, f"ip {version} rule delete pref {priority}")
        yield
        # Routes that were put there go, and the agent gives its own back.
        tool(made, "ip link set eth0 down")
        tool(made, "ip link set eth0 up")


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

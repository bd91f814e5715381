# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine whose AppVMs share one WireGuard tunnel, by the real command.

::

    work, personal -- sys-vpn -- sys-net -- internet: router 192.0.2.1, the provider
                          \\_______ tunnel _______/   web 198.51.100.80

The provider is wireguard-go and a dnsmasq in the lab's internet: what leaves the
tunnel comes to the same servers as what does not, from 10.64.0.2 and not from a
NetVM's address.
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_interface
from pathlib import Path
from socket import if_nametoindex

from agent.netlink import ROUTE, Netlink
from agent.rtnetlink import add_address, delete_link, set_link
from controller import namespaces
from tests.e2e.machine import PACE, WEB4, Machine, command_line, machine, until
from tests.lab.sniffer import EVERY, UDP, Packet, Sniffer
from tests.lab.wireguard import Keys, Server, server

PROVIDER = "192.0.2.1"
OTHER_END = "198.51.100.81"  # the provider listens there too
IN_TUNNEL = "10.64.0.2"  # who clients are, seen from behind the tunnel
RESOLVER = "10.64.0.1"
SECRET_NAME, SECRET = "in.tunnel", "198.51.100.80"
PATIENCE = 30.0 * PACE  # seconds; only a failing test waits that long

OUTSIDE = """
[domains.sys-net]
personality = "netvm"
uplink = "lab"
"""
POLICY = f"""{OUTSIDE}
[domains.sys-vpn]
personality = "wireguard"
netvm = "sys-net"
config = "provider.conf"

[domains.work]
netvm = "sys-vpn"
firewall = [
  "accept specialtarget=dns", "accept proto=tcp dstports=80",
  "accept proto=tcp dstports=7", "accept proto=udp dstports=4433",
]

[domains.personal]
netvm = "sys-vpn"
firewall = ["accept specialtarget=dns", "accept proto=tcp dstports=443"]
"""


@dataclass
class Room:
    """The machine and the provider; ``client`` are the keys of the profile."""

    machine: Machine
    provider: Server
    client: Keys = field(default_factory=Keys)

    @property
    def profile(self) -> Path:
        return self.machine.policy.parent / "provider.conf"

    def give(self, text: str) -> None:
        """Put a provider's file beside the policy, as a user would."""
        self.profile.touch(mode=0o600)
        self.profile.write_text(text)

    def give_good(self, endpoint: str = PROVIDER, *lines: str, **more: str) -> None:
        self.give(self.provider.profile(self.client, endpoint, *lines, **more))

    def vpn(self) -> dict[str, object]:
        """Return what status says of the VPN."""
        return self.machine.status()["sys-vpn"]

    def is_up(self) -> bool:
        return self.vpn()["state"] == "up"

    def comes_up(self) -> None:
        until(self.is_up, PATIENCE)

    def problem(self) -> str:
        """Return the cause that status names, once it names one.

        Before its netvm is linked to it, it has no uplink.
        """

        def found() -> object:
            problem = self.vpn()["problem"]
            return None if problem == "no uplink" else problem

        return str(until(found, PATIENCE))

    def seen_from(self, domain: str, url: str = f"http://{WEB4}/") -> str:
        """Return whom a web server takes a domain for, nothing if not reached."""
        words = self.machine.curl_plain(domain, url).out.split()
        return words[1] if words else ""

    def flows(self) -> bool:
        return self.machine.taken_for("work") == IN_TUNNEL

    def daemon(self) -> int:
        """Return the pid of the daemon in the VPN, once there is one."""

        def found() -> list[int]:
            pids = self.machine.processes("sys-vpn")
            words = ((pid, command_line(pid)[:1]) for pid in pids)
            return [pid for pid, first in words if first == [b"/usr/bin/wireguard-go"]]

        return until(found, PATIENCE)[0]

    def agent(self) -> int:
        def found() -> list[int]:
            pids = self.machine.processes("sys-vpn")
            return [pid for pid in pids if command_line(pid)[-1:] == [b"vpn"]]

        return until(found, PATIENCE)[0]

    def in_internet(self, words: str) -> None:
        """Run a tool of the judge beyond the netvm."""
        with namespaces.inside(self.machine.internet.net):
            subprocess.run(words.split(), check=True)

    def sniffer(self) -> Sniffer:
        """Return a capture of all that the VPN sends to its netvm."""
        return Sniffer(self.machine.net("sys-net"), EVERY)


def outer(packet: Packet) -> bool:
    """Whether a packet is the tunnel's own, or keeps the link."""
    if packet.neighbourly:
        return True
    to_provider = str(packet.destination) in (PROVIDER, OTHER_END)
    to_provider &= (packet.protocol, packet.port) in ((UDP, 51820), (UDP, 51821))
    return to_provider and not packet.marked


def leaked(sniffer: Sniffer) -> list[Packet]:
    """Return what came out of the VPN's uplink and is not the tunnel."""
    return [
        packet
        for packet in sniffer.packets
        if not packet.outgoing
        and packet.interface.startswith("vif")
        and not outer(packet)
    ]


def tunnelled(sniffer: Sniffer) -> list[Packet]:
    """Return what came out of the VPN's uplink and is the tunnel."""
    return [
        packet
        for packet in sniffer.packets
        if not packet.outgoing
        and packet.interface.startswith("vif")
        and not packet.neighbourly
        and outer(packet)
    ]


@contextmanager
def running(*argv: str, net: Path) -> Iterator[int]:
    """Have a program in a namespace for a while; gives its pid."""
    quiet = subprocess.DEVNULL
    with namespaces.inside(net):
        process = subprocess.Popen(argv, stdout=quiet, stderr=quiet)
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


@contextmanager
def room(policy: str = POLICY) -> Iterator[Room]:
    """Give a machine with a NetVM alone, and a provider; the policy is not up yet."""
    with machine(OUTSIDE) as made:
        made.up()
        made.policy.write_text(policy)
        with server(made.internet.net) as provider:
            names = f"--address=/{SECRET_NAME}/{SECRET}"
            dnsmasq = ("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null")
            words = ("--no-resolv", "--no-hosts", "--user=root", "--pid-file=")
            listen = ("--bind-interfaces", f"--listen-address={RESOLVER}", names)
            with running(*dnsmasq, *words, *listen, net=made.internet.net):
                found = Room(made, provider)
                provider.accept(found.client.public, f"{IN_TUNNEL}/32")
                yield found


@contextmanager
def connected() -> Iterator[Room]:
    """Give the room with its tunnel up, and take it down."""
    with room() as made:
        made.give_good()
        made.machine.up()
        made.comes_up()
        yield made
        made.machine.does("down")


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def impostor(made: Room) -> None:
    """Put another device in the place of the tunnel's, at one blow."""
    name = "impostor"
    made.machine.tool("sys-vpn", *f"ip link add {name} type veth peer name eve".split())
    made.machine.tool("sys-vpn", *["ip", "link", "set", "eve", "up"])
    with namespaces.inside(made.machine.net("sys-vpn")), Netlink(ROUTE) as kernel:
        theirs, ours = if_nametoindex(name), if_nametoindex("wg0")
        kernel.do(
            delete_link(ours),
            set_link(theirs, name="wg0"),
            add_address(theirs, ip_interface(f"{IN_TUNNEL}/32")),
            set_link(theirs, up=True),
        )

# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine whose AppVMs share one OpenVPN tunnel, by the real command.

::

    work, personal -- sys-vpn -- sys-net -- internet: router 192.0.2.1, the provider
                          \\_______ tunnel _______/   web 198.51.100.80

The provider is a real OpenVPN server and a dnsmasq in the lab's internet: what
leaves the tunnel comes to the same servers as what does not, from 10.8.0.2 and not
from a NetVM's address.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.machine import WEB4, Machine, command_line, machine, until
from tests.lab.sniffer import EVERY, TCP, UDP, Packet, Sniffer
from tests.vpn.openvpn_server import (
    INSIDE,
    LONG_AGO,
    OWN,
    Pki,
    Server,
    profile,
    resolver,
)

PROVIDER, PORT = "192.0.2.1", 1194
OTHER_END = "198.51.100.81"  # of another server, if a test has one
IN_TUNNEL = OWN  # who clients are, seen from behind the tunnel, at first
SECRET_NAME, SECRET = "in.tunnel", "198.51.100.80"
PATIENCE = 40.0  # seconds; only a failing test waits that long
PUSHED = (f'push "dhcp-option DNS {INSIDE}"',)

OUTSIDE = """
[domains.sys-net]
personality = "netvm"
uplink = "lab"
"""
POLICY = f"""{OUTSIDE}
[domains.sys-vpn]
personality = "openvpn"
netvm = "sys-net"
config = "provider.ovpn"

[domains.work]
netvm = "sys-vpn"
firewall = [
  "accept specialtarget=dns", "accept proto=tcp dstports=80",
  "accept proto=tcp dstports=7", "accept proto=udp dstports=9009",
]

[domains.personal]
netvm = "sys-vpn"
firewall = ["accept specialtarget=dns", "accept proto=tcp dstports=443"]
"""
WITH_LOGIN = POLICY.replace(
    'config = "provider.ovpn"', 'config = "provider.ovpn"\nauth = "login"'
)


@dataclass
class Room:
    """The machine and the provider."""

    machine: Machine
    pki: Pki
    provider: Server

    def give(self, text: str, name: str = "provider.ovpn") -> None:
        """Put a file beside the policy, as a user would."""
        file = self.machine.policy.parent / name
        file.touch(mode=0o600)
        file.write_text(text)

    def give_good(self, *servers: str, **how: str) -> None:
        wanted = servers or (f"{PROVIDER} {PORT} {self.provider.proto}",)
        self.give(profile(self.pki, *wanted, **how))

    def vpn(self) -> dict[str, object]:
        """Return what status says of the VPN."""
        return self.machine.status()["sys-vpn"]

    def comes_up(self) -> None:
        until(lambda: self.vpn()["state"] == "up", PATIENCE)

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
        """Say whether a client gets out; the way it takes is another question."""
        return self.machine.reaches("work", WEB4)

    def daemons(self) -> list[int]:
        return self._running(b"/usr/sbin/openvpn", first=True)

    def daemon(self) -> int:
        """Return the pid of the daemon in the VPN, once there is one."""
        return until(self.daemons, PATIENCE)[0]

    def agent(self) -> int:
        return until(lambda: self._running(b"vpn", first=False), PATIENCE)[0]

    def _running(self, word: bytes, *, first: bool) -> list[int]:
        place = slice(0, 1) if first else slice(-1, None)
        pids = self.machine.processes("sys-vpn")
        return [pid for pid in pids if command_line(pid)[place] == [word]]

    def sniffer(self) -> Sniffer:
        """Return a capture of all that the VPN sends to its netvm."""
        return Sniffer(self.machine.net("sys-net"), EVERY)


def sent(sniffer: Sniffer) -> list[Packet]:
    """Return what came out of the VPN's uplink."""
    return [
        packet
        for packet in sniffer.packets
        if not packet.outgoing and packet.interface.startswith("vif")
    ]


def leaked(sniffer: Sniffer) -> list[Packet]:
    """Return what of it is neither the tunnel nor keeps the link."""
    return [packet for packet in sent(sniffer) if not _outer(packet)]


def tunnelled(sniffer: Sniffer) -> list[Packet]:
    """Return what of it is the tunnel."""
    return [p for p in sent(sniffer) if _outer(p) and not p.neighbourly]


def _outer(packet: Packet) -> bool:
    if packet.neighbourly:
        return True
    place = (str(packet.destination), packet.port)
    to_provider = place in ((PROVIDER, PORT), (OTHER_END, PORT + 1))
    return to_provider and packet.protocol in (UDP, TCP) and not packet.marked


def made_pki(place: Path) -> Pki:
    made = Pki(place)
    made.issue("server", "server")
    made.issue("client", "client")
    made.issue("old-server", "server", LONG_AGO)
    made.issue("old-client", "client", LONG_AGO)
    return made


@contextmanager
def room(policy: str = POLICY, proto: str = "udp") -> Iterator[Room]:
    """Give a machine with a NetVM alone, and a provider; the policy is not up yet."""
    with machine(OUTSIDE) as made:
        made.up()
        made.policy.write_text(policy)
        pki = made_pki(made.policy.parent / "pki")
        net = made.internet.net
        provider = Server(pki, net, PROVIDER, PORT, proto, more=PUSHED)
        provider.start()
        try:
            with resolver(net, SECRET_NAME, SECRET):
                yield Room(made, pki, provider)
        finally:
            provider.kill()


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)

# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine whose AppVMs share one OpenVPN tunnel (`tests.e2e.vpn_room`).

The provider is a real OpenVPN server and a dnsmasq; who is behind the tunnel is
10.8.0.2 at first.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.machine import machine
from tests.e2e.vpn_room import (
    OTHER_END,
    OUTSIDE,
    PROVIDER,
    SECRET,
    SECRET_NAME,
    VpnRoom,
    leaks,
    policy_of,
    tunnel,
)
from tests.lab.sniffer import TCP, UDP, Packet, Sniffer
from tests.vpn.openvpn_server import (
    INSIDE,
    LONG_AGO,
    OWN,
    Pki,
    Server,
    profile,
    resolver,
)

PORT = 1194
IN_TUNNEL = OWN  # who clients are, seen from behind the tunnel, at first
PUSHED = (f'push "dhcp-option DNS {INSIDE}"',)
POLICY = policy_of("openvpn", "provider.ovpn")
WITH_LOGIN = POLICY.replace(
    'config = "provider.ovpn"', 'config = "provider.ovpn"\nauth = "login"'
)


@dataclass
class Room(VpnRoom):
    """The machine and the provider."""

    CONFIG, DAEMON = "provider.ovpn", b"/usr/sbin/openvpn"
    INSIDE = ("10.8.0.", "10.9.0.")
    AT = f"{{}} {PORT} udp"
    pki: Pki
    provider: Server

    def give_good(self, *servers: str, **how: str) -> None:
        wanted = servers or (f"{PROVIDER} {PORT} {self.provider.proto}",)
        self.give(profile(self.pki, *wanted, **how))


def leaked(sniffer: Sniffer) -> list[Packet]:
    return leaks(sniffer, _outer)


def tunnelled(sniffer: Sniffer) -> list[Packet]:
    return tunnel(sniffer, _outer)


def _outer(packet: Packet) -> bool:
    place = (str(packet.destination), packet.port)
    to_provider = place in ((PROVIDER, PORT), (OTHER_END, PORT + 1))
    return to_provider and packet.protocol in (UDP, TCP)


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
                yield Room(made, policy, pki, provider)
        finally:
            provider.kill()

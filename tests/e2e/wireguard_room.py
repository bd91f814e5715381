# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine whose AppVMs share one WireGuard tunnel (`tests.e2e.vpn_room`).

The provider is wireguard-go and a dnsmasq; who is behind the tunnel is 10.64.0.2.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from controller import namespaces
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
from tests.lab.sniffer import UDP, Packet, Sniffer
from tests.lab.wireguard import Keys, Server, server

IN_TUNNEL = "10.64.0.2"  # who clients are, seen from behind the tunnel
RESOLVER = "10.64.0.1"
POLICY = policy_of("wireguard", "provider.conf")


@dataclass
class Room(VpnRoom):
    """The machine and the provider; ``client`` are the keys of the profile."""

    CONFIG, DAEMON = "provider.conf", b"/usr/bin/wireguard-go"
    INSIDE = (IN_TUNNEL,)
    AT = "{}"
    provider: Server
    client: Keys = field(default_factory=Keys)

    def give_good(self, endpoint: str = PROVIDER, *lines: str, **more: str) -> None:
        self.give(self.provider.profile(self.client, endpoint, *lines, **more))

    def in_internet(self, words: str) -> None:
        """Run a tool of the judge beyond the netvm."""
        with namespaces.inside(self.machine.internet.net):
            subprocess.run(words.split(), check=True)

    def answers_from_where_it_is_asked(self) -> None:
        """The provider's wireguard-go of Debian 13 lets the route choose from where."""
        self.in_internet("nft add table ip asked")
        hook = "{ type nat hook prerouting priority -100 ; }"
        self.in_internet(f"nft add chain ip asked in {hook}")
        self.in_internet("nft add rule ip asked in udp dport 51820-51821 redirect")


def leaked(sniffer: Sniffer) -> list[Packet]:
    return leaks(sniffer, _outer)


def tunnelled(sniffer: Sniffer) -> list[Packet]:
    return tunnel(sniffer, _outer)


def _outer(packet: Packet) -> bool:
    to_provider = str(packet.destination) in (PROVIDER, OTHER_END)
    return to_provider and (packet.protocol, packet.port) in (
        (UDP, 51820),
        (UDP, 51821),
    )


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
                found = Room(made, policy, provider)
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

# SPDX-License-Identifier: GPL-2.0-or-later
"""A host at which tunnels end, as VPN providers have them.

What comes out of a tunnel leaves by the host's own addresses.  The provider's
resolvers are reachable from inside a tunnel only, and know one name that nobody
else does.
"""

import os
import signal
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from pathlib import Path

from agent.nft import Nft
from controller import namespaces
from controller.lab import wires
from controller.lab.addresses import RESOLVERS, Address, remote
from controller.lab.hosts import INTERFACE, Hosts, forward, run
from controller.readable import readable

INSIDE = "inside.example.com"  # a name that only the provider's resolvers know
SERVER, CLIENT, RESOLVER = 1, 2, 53  # the last numbers of addresses in a tunnel
PATIENCE = 20.0  # seconds for a process to end

LEAVE = f"""\
table inet exit {{
  chain enter {{
    type filter hook input priority filter; policy accept;
    iifname "{INTERFACE}" ip daddr 10.0.0.0/8 drop
    iifname "{INTERFACE}" ip6 daddr fd00::/8 drop
  }}
  chain leave {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname "{INTERFACE}" masquerade
  }}
}}
"""
DNSMASQ = (
    *("--conf-file=/dev/null", "--user=root", "--bind-interfaces", "--no-hosts"),
    *("--no-resolv", f"--server={RESOLVERS[0]}", "--local-ttl=1", "--log-queries"),
)


@dataclass(frozen=True, slots=True)
class Exit:
    """A host by its name, the number of its addresses, and that of its tunnel.

    ``inner`` is N in 10.N.0.0/24 and fdN::/64, the networks in the tunnel.
    """

    hosts: Hosts
    name: str
    number: int
    inner: int

    @property
    def net(self) -> Path:
        """Its namespace."""
        return self.hosts.net(self.name)

    @property
    def files(self) -> Path:
        """Its folder, for whatever runs there."""
        return self.hosts.files / "exits" / self.name

    @property
    def exits(self) -> tuple[Address, Address]:
        """The addresses that sites see."""
        return remote(self.number)

    @property
    def asked(self) -> Path:
        """What its resolvers were asked: the log of dnsmasq."""
        return self.files / "dns.log"

    @property
    def resolvers(self) -> tuple[Address, Address]:
        """The resolvers in the tunnel."""
        four, six = self.inside(RESOLVER)
        return four.ip, six.ip

    def inside(self, host: int) -> tuple[IPv4Interface, IPv6Interface]:
        """Return the addresses of a host in the tunnel, with their networks."""
        four = IPv4Interface(f"10.{self.inner}.0.{host}/24")
        return four, IPv6Interface(f"fd{self.inner:02}::{host}/64")

    def make(self) -> None:
        """Make the host, in place of any; only the tunnel is missing."""
        self.hosts.add(self.name, (self.number,))
        self.files.mkdir(mode=0o700, parents=True, exist_ok=True)
        with namespaces.inside(self.net):
            forward()
            wires.configure("lo", [ip_interface(each) for each in self.resolvers])
            Nft().load(LEAVE)
        run(
            self.net,
            *("dnsmasq", *DNSMASQ),
            *(f"--listen-address={each}" for each in self.resolvers),
            f"--host-record={INSIDE},{self.resolvers[0]},{self.resolvers[1]}",
            f"--pid-file={self.files / 'dnsmasq.pid'}",
            f"--log-facility={self.asked}",
        )

    def pids(self, program: str) -> list[int]:
        """Return the processes of a program here."""
        found = namespaces.processes(self.net) if self.net.exists() else ()
        return [pid for pid in found if _name(pid) == program]

    def kill(self, program: str) -> None:
        """SIGKILL a program here and wait until it has ended."""
        for pid in self.pids(program):
            ended = os.pidfd_open(pid)
            try:
                signal.pidfd_send_signal(ended, signal.SIGKILL)
                readable(ended, PATIENCE)
            finally:
                os.close(ended)


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""

# SPDX-License-Identifier: GPL-2.0-or-later
"""The embedded offline internet: ``uplink = "lab"``.

One LAN of documentation addresses (RFC 5737, RFC 3849) that leads nowhere: a
router, behind it the servers of `controller.lab.servers` and an authoritative
dnsmasq, and a neighbour, who is the attacker of the tests.  Both are network
namespaces below ``lab/`` in the runtime directory.  What was made is found
again by these files alone, so any process can take it down.

=============  ======================  ===================
router         192.0.2.1               2001:db8:1::1
NetVMs         192.0.2.2, …            2001:db8:1::2, …
neighbour      192.0.2.66              2001:db8:1::66
resolver       192.0.2.53              2001:db8:1::53
web, echo      198.51.100.80           2001:db8:80::80
the forbidden  198.51.100.81           2001:db8:80::81
intranet       10.200.0.10
=============  ======================  ===================
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_interface
from pathlib import Path

from controller import namespaces
from controller.lab import servers, wires
from controller.ports import PlatformError, WayOut

Address = IPv4Address | IPv6Address

WEB = (IPv4Address("198.51.100.80"), IPv6Address("2001:db8:80::80"))
FORBIDDEN = (IPv4Address("198.51.100.81"), IPv6Address("2001:db8:80::81"))
INTRANET = IPv4Address("10.200.0.10")
SERVERS = (*WEB, *FORBIDDEN, INTRANET)
RESOLVERS = (IPv4Address("192.0.2.53"), IPv6Address("2001:db8:1::53"))
GATEWAYS = (IPv4Address("192.0.2.1"), IPv6Address("2001:db8:1::1"))
ROUTER, NETVM, NEIGHBOUR = 1, 2, 66  # the last number of each address and MAC
LAN, INTERFACE = "lan", "eth0"
DAEMONS = 2  # servers.py and dnsmasq

NAMES: Mapping[str, Sequence[Address]] = {
    "example.com": WEB,
    "www.example.com": WEB,
    "forbidden.example.com": FORBIDDEN,
    "intranet.example.com": (INTRANET,),
    "v4only.example.com": WEB[:1],
    "v6only.example.com": WEB[1:],
    "rotating.example.com": (*WEB, *FORBIDDEN),
    "changing.example.com": WEB[:1],
}
DNSMASQ = (
    "--conf-file=/dev/null",
    "--user=root",  # nobody else can read the runtime directory
    "--bind-interfaces",
    "--no-hosts",
    "--no-resolv",
    "--local=/#/",
    "--local-ttl=1",
    "--log-queries",
)
QUESTION = bytes(4) + b"\0\1" + bytes(7) + b"\0\2\0\1"  # the name servers of "."
PATIENCE = 5.0  # seconds
PROGRAMS = "/usr/sbin:/usr/bin:/sbin:/bin"
CERTIFIED = [f"DNS:{name}" for name in NAMES] + [f"IP:{each}" for each in SERVERS]
OPENSSL = (
    *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
    *("-nodes", "-days", "30", "-subj", "/CN=lab"),
    *("-addext", "subjectAltName=" + ",".join(CERTIFIED)),
)


class Internet:
    """The internet below a runtime directory, one for each."""

    def __init__(self, runtime: Path) -> None:
        self._files = runtime / "lab"
        self.net = self._files / "internet"
        self.neighbour = self._files / "neighbour"
        self.certificate = self._files / "certificate.pem"  # for curl --cacert
        self.questions = self._files / "dns.log"  # what dnsmasq was asked

    @property
    def running(self) -> bool:
        """Whether it has been started and all its servers are there."""
        return self.net.exists() and len(namespaces.processes(self.net)) >= DAEMONS

    @property
    def ports(self) -> frozenset[str]:
        """The bridge ports that NetVMs are plugged into."""
        if not self.net.exists():
            return frozenset()
        with namespaces.inside(self.net):
            names = {name for _, name in socket.if_nameindex()}
        return frozenset(name for name in names if name.startswith("netvm"))

    def up(self) -> None:
        """Start everything, in place of what may be left of an earlier one.

        Every server answers on return.  `PlatformError` says what is missing.
        """
        self.down()
        self._files.mkdir(mode=0o700, parents=True)
        namespaces.create(self.net)
        namespaces.create(self.neighbour)
        with namespaces.inside(self.net):
            wires.configure("lo", (ip_interface(each) for each in SERVERS))
            wires.bridge(LAN)
            own = [*_own(ROUTER), *(ip_interface(each) for each in RESOLVERS)]
            wires.configure(LAN, own, mac=_mac(ROUTER))
        self._plug("neighbour", NEIGHBOUR, self.neighbour, INTERFACE)
        self._serve()

    def attach(self, net: Path, interface: str = INTERFACE) -> str:
        """Plug a NetVM into the LAN and configure it; return the port's name.

        It gets the first free number from 2 on in its addresses and its MAC,
        and default routes.  The port, ``netvm2`` for the first, is the far end
        of its cable, where a capture belongs.
        """
        taken = self.ports
        host = next(n for n in range(NETVM, NEIGHBOUR) if f"netvm{n}" not in taken)
        self._plug(f"netvm{host}", host, net, interface)
        return f"netvm{host}"

    def set_names(self, names: Mapping[str, Sequence[Address]]) -> None:
        """Change what names mean, from the next question on.

        Those not mentioned are as in `NAMES`; no address means no such name.
        """
        lines = [
            f"{address} {name}\n"
            for name, addresses in {**NAMES, **names}.items()
            for address in addresses
        ]
        (self._files / "hosts").write_text("".join(lines))
        with suppress(FileNotFoundError):  # dnsmasq does not run yet
            pid = int((self._files / "dnsmasq.pid").read_text())
            if pid in namespaces.processes(self.net):
                os.kill(pid, signal.SIGHUP)
                self._ask()

    def down(self) -> None:
        """End and remove everything, whichever process made it."""
        for net in (self.net, self.neighbour):
            if net.exists():
                namespaces.kill_all(net)
                # The kernel is slow to clear a namespace; a cable is not.
                with suppress(OSError), namespaces.inside(net):
                    wires.delete(*(name for _, name in socket.if_nameindex()))
                namespaces.remove(net)
        shutil.rmtree(self._files, ignore_errors=True)

    def _plug(self, port: str, host: int, net: Path, interface: str) -> None:
        with namespaces.inside(self.net):
            wires.plug(port, LAN, interface, _mac(host), net)
        with namespaces.inside(net):
            wires.configure(interface, _own(host), GATEWAYS)

    def _ask(self) -> None:
        """Wait for any answer of dnsmasq: it takes a signal before the next one."""
        with (
            namespaces.inside(self.net),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking,
        ):
            asking.settimeout(PATIENCE)
            asking.sendto(QUESTION, (str(RESOLVERS[0]), 53))
            asking.recv(512)

    def _serve(self) -> None:
        key = self._files / "key.pem"
        self._run("openssl", *OPENSSL, "-keyout", key, "-out", self.certificate)
        key.write_bytes(key.read_bytes() + self.certificate.read_bytes())
        self._run(sys.executable, "-I", servers.__file__, key, *SERVERS)
        self.set_names({})
        self._run(
            "dnsmasq",
            *DNSMASQ,
            *(f"--listen-address={address}" for address in RESOLVERS),
            f"--addn-hosts={self._files / 'hosts'}",
            f"--pid-file={self._files / 'dnsmasq.pid'}",
            f"--log-facility={self.questions}",
        )

    def _run(self, program: str, *words: object) -> None:
        """Run a program to its end; a daemon ends when its child listens."""
        found = shutil.which(program, path=PROGRAMS)
        if found is None:
            raise PlatformError(f'uplink = "lab": {program} is not installed')
        with namespaces.inside(self.net):
            done = subprocess.run(  # noqa: S603 - the words are ours
                [found, *map(str, words)], capture_output=True, text=True, check=False
            )
        if done.returncode:
            raise PlatformError(f'uplink = "lab": {program}: {done.stderr.strip()}')


@dataclass(frozen=True, slots=True)
class Lab:
    """The way out of NetVMs with ``uplink = "lab"`` (`controller.ports.Uplink`).

    ``net`` returns the namespace of a domain.  The internet is there while any
    NetVM is attached, and is started anew when it is not.
    """

    internet: Internet
    net: Callable[[str], Path]

    def attach(self, domain: str) -> WayOut:
        """Plug the domain in, unless it is; start the internet before the first."""
        if not self.internet.running:
            self.internet.up()
        net = self.net(domain)
        with namespaces.inside(net):
            names = {name for _, name in socket.if_nameindex()}
        if INTERFACE not in names:
            self.internet.attach(net)
        return WayOut(INTERFACE, tuple(map(str, RESOLVERS)))

    def detach(self, domain: str) -> None:
        """Unplug the domain; the last one ends the internet."""
        net = self.net(domain)
        # A cable does not outlive the namespace, which somebody may have removed.
        if os.path.ismount(net):
            with namespaces.inside(net):
                wires.delete(INTERFACE)
        if not self.internet.ports:
            self.internet.down()


def _own(host: int) -> list[wires.Interface]:
    # A link-local address of its own, because the kernel's is silent for a second.
    prefixes = "192.0.2.{}/24", "2001:db8:1::{}/64", "fe80::{}/64"
    return [ip_interface(prefix.format(host)) for prefix in prefixes]


def _mac(host: int) -> str:
    return f"02:00:00:00:00:{host:02}"

# SPDX-License-Identifier: GPL-2.0-or-later
"""The embedded offline internet: ``uplink = "lab"``.

One LAN of documentation addresses that leads nowhere: a router, behind it the
servers of `controller.lab.servers`, an authoritative dnsmasq and the hosts of
`controller.lab.hosts`, and a neighbour, who is the attacker of the tests.  All
are network namespaces below ``lab/`` in the runtime directory.  What was made
is found again by these files alone, so any process can take it down.
`controller.lab.addresses` has the map.
"""

import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_interface
from pathlib import Path

from controller import namespaces
from controller.lab import servers, wires
from controller.lab.addresses import (
    NAMES,
    NEIGHBOUR,
    NETVM,
    RESOLVERS,
    ROUTER,
    SERVERS,
    Address,
    gateways,
    mac,
    near,
)
from controller.lab.hosts import INTERFACE, Hosts, clear, run
from controller.ports import WayOut

LAN = "lan"
DAEMONS = 2  # servers.py and dnsmasq

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
PATIENCE = 20.0  # seconds
LOG_LIMIT = 16 << 20  # bytes
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
        self.hosts = Hosts(self._files, self.net)

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
            own = [*near(ROUTER), *(ip_interface(each) for each in RESOLVERS)]
            wires.configure(LAN, own, mac=mac(ROUTER))
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

    def trim_log(self) -> None:
        """Begin the log of questions anew once it is too long: clients write it."""
        with suppress(OSError):  # it may not be there, or go at this moment
            if self.questions.stat().st_size > LOG_LIMIT:
                os.truncate(self.questions, 0)

    def down(self) -> None:
        """End and remove everything, whichever process made it."""
        hosts = [self.hosts.net(name) for name in self.hosts.names()]
        for net in (*hosts, self.net, self.neighbour):
            clear(net)
        shutil.rmtree(self._files, ignore_errors=True)

    def _plug(self, port: str, host: int, net: Path, interface: str) -> None:
        with namespaces.inside(self.net):
            wires.plug(port, LAN, interface, mac(host), net)
        own = near(host)
        with namespaces.inside(net):
            wires.configure(interface, own, gateways(own))

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
        run(self.net, "openssl", *OPENSSL, "-keyout", key, "-out", self.certificate)
        key.write_bytes(key.read_bytes() + self.certificate.read_bytes())
        run(self.net, sys.executable, "-I", servers.__file__, key, *SERVERS)
        self.set_names({})
        run(
            self.net,
            "dnsmasq",
            *DNSMASQ,
            *(f"--listen-address={address}" for address in RESOLVERS),
            f"--addn-hosts={self._files / 'hosts'}",
            f"--pid-file={self._files / 'dnsmasq.pid'}",
            f"--log-facility={self.questions}",
        )


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

# SPDX-License-Identifier: GPL-2.0-or-later
"""What the gateways of a policy file need to meet in the embedded internet.

A policy file names what a provider handed out: profiles, passwords, bridges.
Here the provider is the embedded internet, so the servers are started in it and
those files written, before the policy file is brought up.
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from controller.lab import openvpn_server, wireguard_server
from controller.lab.addresses import Address, remote
from controller.lab.openvpn_server import AUTH, UDP, UDP_PASSWORD, OpenVpnServer
from controller.lab.tor_network import PAGE, TorNetwork
from controller.lab.torrc import NUMBERS
from controller.lab.wireguard_server import WireGuardServer
from controller.platforms.lab import Internet

Sites = Mapping[str, frozenset[Address]]
"""Names of sites, and the addresses of which each sees one."""


@dataclass(frozen=True, slots=True)
class Given:
    """What a gateway is given: files by their keys, and what sites see."""

    files: Mapping[str, str]
    sites: Sites


@dataclass(slots=True)
class Provider:
    """The provider in one internet, which is started when it is first needed."""

    internet: Internet
    say: Callable[[str], None]
    _wireguards: int = field(default=0, init=False)

    def furnish(self, policy: Path) -> Mapping[str, Sites]:
        """Write every file that a policy file names, next to it.

        Returns what sites see of the clients of each gateway that got any.
        """
        found = {}
        tables = tomllib.loads(policy.read_text(encoding="utf-8")).get("domains", {})
        for name, table in tables.items():
            given = self._give(table)
            if given is not None:
                found[name] = given.sites
                for key, text in given.files.items():
                    if key in table:
                        _write(policy.parent / table[key], text)
        return found

    def _give(self, table: Mapping[str, object]) -> Given | None:
        match table.get("personality"):
            case "tor":
                return self._tor()
            case "wireguard":
                return self._wireguard()
            case "openvpn":
                return self._openvpn(UDP_PASSWORD if "auth" in table else UDP)
            case _:
                return None

    def _tor(self) -> Given:
        self.say("starting a private Tor network, which takes a while")
        tors = TorNetwork(self._started().hosts)
        network = tors.network() if tors.ready else tors.up()
        files = {"network": network.options, "bridges": f"{network.bridge}\n"}
        service = frozenset(remote(NUMBERS["onion"]))
        sites = {PAGE: frozenset(network.exits), network.onion: service}
        return Given(files, sites)

    def _wireguard(self) -> Given:
        self.say("starting a WireGuard server")
        which = self._wireguards % len(wireguard_server.NUMBERS)
        self._wireguards += 1
        server = WireGuardServer(self._started().hosts, which)
        server.up()
        files = {"config": wireguard_server.profile(server)}
        return Given(files, {PAGE: frozenset(server.host.exits)})

    def _openvpn(self, kind: openvpn_server.Kind) -> Given:
        self.say("starting an OpenVPN server")
        server = OpenVpnServer(self._started().hosts, kind)
        server.up()
        files = {"config": openvpn_server.profile(server), "auth": AUTH}
        return Given(files, {PAGE: frozenset(server.host.exits)})

    def _started(self) -> Internet:
        if not self.internet.running:
            self.internet.up()
        return self.internet


def _write(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")

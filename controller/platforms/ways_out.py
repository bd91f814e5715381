# SPDX-License-Identifier: GPL-2.0-or-later
"""Which kind of uplink is which way out of a NetVM."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.nft import Nft
from controller.domains import Domain, LabUplink, Nic
from controller.domains import HostUplink as Host
from controller.platforms.dhcp import Dhcp
from controller.platforms.host_uplink import HostUplink
from controller.platforms.lab import Internet, Lab
from controller.platforms.netns import Netns
from controller.platforms.nic_uplink import NicUplink
from controller.ports import PlatformError, Uplink, UplinkError, WayOut

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Way:
    """A `controller.ports.Uplink` of two functions."""

    give: Callable[[str], WayOut]
    take: Callable[[str], None]

    def attach(self, domain: str) -> WayOut:
        """Give the domain its uplink; `UplinkError` if it cannot have it."""
        with _of(domain):
            return self.give(domain)

    def detach(self, domain: str) -> None:
        """Take it back."""
        self.take(domain)


@contextmanager
def _of(domain: str) -> Iterator[None]:
    """Say of an uplink that cannot be had whose it is."""
    try:
        yield
    except PlatformError as error:
        raise UplinkError(domain, str(error)) from error


def _load(script: str) -> None:
    # Only `uplink = "host"` needs nftables here, so nothing else opens it.
    Nft().load(script)


class WaysOut:
    """The uplinks of the NetVMs below one runtime directory."""

    def __init__(self, runtime: Path, platform: Netns) -> None:
        self._net = platform.net
        self._host = HostUplink(runtime, _load)
        self._nic = NicUplink(runtime, Dhcp(platform).configure)
        self._internet = Internet(runtime)
        self._runtime = runtime

    def of(self, uplink: Host | LabUplink | Nic) -> Uplink:
        """Return the way out that a NetVM asks for."""
        match uplink:
            case Host():
                return _Way(
                    lambda domain: self._host.attach(domain, self._net(domain)),
                    self._host.detach,
                )
            case LabUplink():
                lab = Lab(self._internet, self._net)
                return _Way(lab.attach, lab.detach)
            case Nic(name):
                return _Way(
                    lambda domain: self._nic.attach(domain, self._net(domain), name),
                    lambda domain: self._nic.detach(domain, self._net(domain)),
                )

    def check(self, domains: Iterable[Domain]) -> None:
        """Raise `UplinkError` if a NetVM among them asks for what cannot be given."""
        for domain in domains:
            if isinstance(domain.uplink, Nic):
                with _of(domain.name):
                    self._nic.check(domain.uplink.name)

    def look(self) -> None:
        """Start again what has ended of all that configures uplinks."""
        self._internet.trim_log()
        try:
            self._nic.look(self._net)
        except OSError as error:
            log.warning("an uplink: %s", error)

    def sweep(self) -> None:
        """Take every uplink away that a daemon that crashed has left."""
        self._nic.sweep(self._net)
        self._host.sweep()
        self._internet.down()

# SPDX-License-Identifier: GPL-2.0-or-later
"""``uplink = "enp3s0"``: a network card of this machine, moved into a NetVM.

The card loses its addresses and routes on the way, there and back: who
configured it (NetworkManager, ifupdown) does so again when it returns.  Its name
stays.  ``nic/DOMAIN`` below the runtime directory has the name.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from socket import if_nameindex

from controller import cables, namespaces
from controller.nearest import expected
from controller.platforms.host_network import default_interfaces
from controller.ports import PlatformError, WayOut
from rules.model import Family

log = logging.getLogger(__name__)

SYS = Path("/sys/class/net")
LOST = "{0}: its addresses are gone, it has to be configured inside the NetVM"

Notes = tuple[str, ...]


def _by_hand(_domain: str, name: str) -> Notes:
    return (LOST.format(name),)


class NicUplink:
    """Moves cards of the namespace we are in, which is the host's.

    ``configure`` gives the card of a domain addresses again, or says why not.
    With ``force`` even the card of the machine's only default route.
    """

    def __init__(
        self,
        runtime: Path,
        configure: Callable[[str, str], Notes] = _by_hand,
        *,
        force: bool = False,
    ) -> None:
        self._directory = runtime / "nic"
        self._configure = configure
        self._force = force

    def attach(self, domain: str, net: Path, name: str) -> WayOut:
        """Move the card into the NetVM; `PlatformError` if it is not fit for that."""
        record = self._directory / domain
        if not (record.exists() and record.read_text() == name and _has(net, name)):
            self.detach(domain, net)
            self._refuse_unfit(name)
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            record.write_text(name)
            cables.move(name, net)
        return WayOut(name, (), self._configure(domain, name))

    def check(self, name: str) -> None:
        """Raise `PlatformError` for a card that no NetVM has and none can have."""
        if name not in self._held().values():
            self._refuse_unfit(name)

    def look(self, net: Callable[[str], Path]) -> None:
        """Have the cards that NetVMs have configured, if nobody does any more."""
        for domain, name in self._held().items():
            if _has(net(domain), name):
                self._configure(domain, name)

    def sweep(self, net: Callable[[str], Path]) -> None:
        """Bring every card back, before the NetVMs that have them end.

        With a network namespace the kernel ends those that it has made itself, such
        as that of a VLAN.
        """
        for domain in self._held():
            try:
                self.detach(domain, net(domain))
            except OSError as error:
                log.warning("the card of %s: %s", domain, error)
                (self._directory / domain).unlink(missing_ok=True)

    def _held(self) -> dict[str, str]:
        """Return the card of each NetVM that was given one."""
        records = self._directory.iterdir() if self._directory.is_dir() else ()
        return {record.name: record.read_text() for record in records}

    def detach(self, domain: str, net: Path) -> None:
        """Bring the card of a NetVM back, if it has one.

        The kernel has done so already if the NetVM is no more.
        """
        record = self._directory / domain
        if record.exists() and _has(net, name := record.read_text()):
            with cables.HERE.open() as home, namespaces.inside(net):
                cables.move(name, Path(f"/proc/self/fd/{home.fileno()}"))
        record.unlink(missing_ok=True)

    def _refuse_unfit(self, name: str) -> None:
        if not cables.exists(name):
            there = [x for _, x in if_nameindex() if _may_be_card(x)]
            hint = expected(name, ("host", "lab", *there))
            raise PlatformError(f"{name}: no such interface, {hint}")
        if not _may_be_card(name):
            raise PlatformError(f"{name}: not a network card")
        for sign, what in (
            ("bridge", "a bridge, expected a network card"),
            ("brport", "part of a bridge, take it out first"),
            ("phy80211", "Wi-Fi, which cannot be moved yet"),
        ):
            if (SYS / name / sign).exists():
                raise PlatformError(f"{name}: {what}")
        ways = {x for version in Family for x in default_interfaces(version)}
        if ways == {name} and not self._force:
            raise PlatformError(
                f"{name}: this machine's only way out, expected another card"
            )


def _may_be_card(name: str) -> bool:
    return name != "lo" and not name.startswith(("vif", "rv"))


def _has(net: Path, name: str) -> bool:
    if not net.exists():
        return False
    with namespaces.inside(net):
        return cables.exists(name)

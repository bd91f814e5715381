# SPDX-License-Identifier: GPL-2.0-or-later
"""The resolvers of a NetVM, as its own programs would use them now."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from agent.personality import Dns
from netvm import network_manager, resolv_conf, resolved
from netvm.bus import Bus
from netvm.resolvers import Resolvers, by_family, choose, virtual_map
from netvm.watch import Watch
from rules.model import Address

log = logging.getLogger(__name__)

RESOLV_CONF = Path("/etc/resolv.conf")
PROPERTIES = (resolved.SERVERS, network_manager.SERVERS)
MOST = 65536  # bytes of resolv.conf that are read


class DnsSources:
    """systemd-resolved, NetworkManager and resolv.conf behind one port.

    ``bus`` must hold `PROPERTIES`.
    """

    def __init__(
        self,
        bus: Bus,
        path: Path = RESOLV_CONF,
        resolved_changes: Path = resolved.CHANGES,
    ) -> None:
        self._bus = bus
        self._path = path
        self._watch = Watch(path, resolved_changes)
        self._said: tuple[str, ...] = ()

    def dns(self, from_dom0: tuple[Address, ...]) -> Dns:
        """Return the resolvers now.

        ``from_dom0`` goes first, whatever it is: where dom0 configures the uplink
        (never that of a network card), it knows who answers there, be it a
        domain that has the virtual addresses itself.
        """
        found = by_family(from_dom0, "dom0") if from_dom0 else self.resolvers()
        return Dns(virtual_map(found), (*found.v4, *found.v6))

    def watched(self) -> Mapping[int, Callable[[], None]]:
        """Return a handler for each file descriptor to wait on."""
        return {
            self._bus.fileno(): self._bus.handle,
            self._watch.fileno(): self._file_changed,
        }

    def resolvers(self) -> Resolvers:
        """Read all three sources and choose."""
        found = choose(
            resolved.parse(self._bus.value(resolved.SERVERS)),
            network_manager.parse(self._bus.value(network_manager.SERVERS)),
            resolv_conf.parse(self._text()),
        )
        said = (found.source, *found.problems)
        if said != self._said:
            self._said = said
            log.info("resolvers from: %s", found.source)
            for problem in found.problems:
                log.debug("%s", problem)
        return found

    def close(self) -> None:
        """Stop watching; the bus stays its owner's."""
        self._watch.close()

    def _file_changed(self) -> None:
        if self._watch.handle():
            self._bus.refresh()

    def _text(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                return file.read(MOST)
        except OSError as error:
            log.debug("%s", error)
            return b""

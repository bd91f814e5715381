# SPDX-License-Identifier: GPL-2.0-or-later
"""Notice that the connection of this machine changed: its routes, its resolvers."""

import logging
from collections.abc import Callable
from pathlib import Path
from selectors import EVENT_READ, BaseSelector

from agent.netlink import ROUTE, Netlink
from netvm.watch import Watch

log = logging.getLogger(__name__)

RESOLV_CONF = Path("/etc/resolv.conf")
_ROUTES = 0x40 | 0x400  # RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_ROUTE


class HostChanges:
    """Calls ``changed`` from the loop of ``selector``, as long as that lives."""

    def __init__(self, selector: BaseSelector, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._routes = Netlink(ROUTE, _ROUTES)
        self._files = Watch(RESOLV_CONF)
        selector.register(self._routes, EVENT_READ, self._routes_changed)
        selector.register(self._files, EVENT_READ, self._files_changed)

    def close(self) -> None:
        """Stop listening."""
        self._routes.close()
        self._files.close()

    def _routes_changed(self, _mask: int) -> None:
        self._routes.drop_events()
        self._follow()

    def _files_changed(self, _mask: int) -> None:
        if self._files.handle():
            self._follow()

    def _follow(self) -> None:
        try:
            self._changed()
        except OSError as error:
            # The next change, or a restart of the NetVM, tries again.
            log.warning("the connection of this machine: %s", error)

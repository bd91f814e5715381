# SPDX-License-Identifier: GPL-2.0-or-later
"""Hears of every change in the kernels that could decide where packets go."""

import socket
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from selectors import EVENT_READ, BaseSelector

from controller import namespaces

# linux/netlink.h, linux/rtnetlink.h, linux/netfilter/nfnetlink.h
_ROUTE, _NETFILTER = 0, 12
_OF_NFTABLES = 1 << 6  # NFNLGRP_NFTABLES
_LINK, _ADDRESS4, _ROUTE4, _RULE4 = 0x1, 0x10, 0x40, 0x80
_ADDRESS6, _ROUTE6, _RULE6 = 0x100, 0x400, 1 << 18
_QUEUE, _SETTING4, _SETTING6, _NEXTHOP = 0x8, 1 << 23, 1 << 24, 1 << 31
_OF_ROUTES = _LINK | _ADDRESS4 | _ROUTE4 | _RULE4 | _ADDRESS6 | _ROUTE6 | _RULE6
# Of the settings, those of RTM_NEWNETCONF: forwarding, rp_filter and their kin.
_OF_ROUTES |= _QUEUE | _SETTING4 | _SETTING6 | _NEXTHOP
_CHUNK = 65536  # bytes


class KernelEvents:
    """Listens in the networks of domains; ``net`` is where the namespace of one is.

    A socket keeps its namespace alive, so `forget` a domain before it ends.
    """

    def __init__(
        self,
        selector: BaseSelector,
        net: Callable[[str], Path],
        changed: Callable[[], None],
    ) -> None:
        self._selector = selector
        self._net = net
        self._changed = changed
        self._sockets: dict[str, list[socket.socket]] = {}

    def follow(self, names: Collection[str]) -> None:
        """Listen to these domains alone; who is not there yet is listened to later."""
        for name in self._sockets.keys() - {*names}:
            self.forget(name)
        for name in names:
            if name not in self._sockets and self._net(name).exists():
                self._listen(name)

    def forget(self, name: str) -> None:
        """Listen to a domain no more."""
        for each in self._sockets.pop(name, []):
            self._selector.unregister(each)
            each.close()

    def close(self) -> None:
        """Listen to nobody."""
        for name in tuple(self._sockets):
            self.forget(name)

    def _listen(self, name: str) -> None:
        opened: list[socket.socket] = []
        try:
            with namespaces.inside(self._net(name)):
                for family, groups in (
                    (_NETFILTER, _OF_NFTABLES),
                    (_ROUTE, _OF_ROUTES),
                ):
                    opened.append(_socket(family, groups))
        except OSError:  # it is about to begin, or to end
            for each in opened:
                each.close()
            return
        self._sockets[name] = opened
        for each in opened:
            self._selector.register(each, EVENT_READ, partial(self._hear, each))
        self._changed()

    def _hear(self, heard: socket.socket, _mask: int) -> None:
        try:
            while heard.recv(_CHUNK):
                pass
        except BlockingIOError:
            pass
        except OSError:
            pass  # more than fits: that something changed is all that counts
        self._changed()


def _socket(family: int, groups: int) -> socket.socket:
    made = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, family
    )
    try:
        made.bind((0, groups))
    except OSError:
        made.close()
        raise
    return made

# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``nft monitor trace`` shows, taken from the kernel as it sends it."""

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from proof.bytecode import Code, Place, Verdict, data
from proof.netlink import NETFILTER, attributes, messages, number, text

_TRACE = 10 << 8 | 17  # NFNL_SUBSYS_NFTABLES, NFT_MSG_TRACE
_GROUP, _ADD_MEMBERSHIP = 9, 1  # NFNLGRP_NFTRACE, NETLINK_ADD_MEMBERSHIP
_SOL_NETLINK = 270
_BUFFER = 1 << 24  # bytes
_RULE = 3  # NFT_TRACETYPE_RULE
# NFTA_TRACE_…
_TABLE, _CHAIN, _HANDLE, _TYPE, _VERDICT, _FAMILY = 1, 2, 3, 4, 5, 15


@dataclass(frozen=True, slots=True)
class Matched:
    """A rule that the kernel says a packet matched, and its verdict."""

    chain: Place
    handle: int
    verdict: int


class Tracer:
    """Hears the kernel's trace in the namespace it was made in."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, NETFILTER)
        self._socket.setsockopt(socket.SOL_SOCKET, 33, _BUFFER)  # SO_RCVBUFFORCE
        self._socket.bind((0, 0))
        self._socket.setsockopt(
            _SOL_NETLINK, _ADD_MEMBERSHIP, struct.pack("=i", _GROUP)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def rules(self) -> list[Matched]:
        """Return the rules matched since the last call, in their order."""
        return list(self._rules())

    def _rules(self) -> Iterator[Matched]:
        with suppress(BlockingIOError):
            while True:
                for kind, _, _, body in messages(self._socket.recv(1 << 17)):
                    found = attributes(body, 4)
                    is_rule = number(found.get(_TYPE), "trace") == _RULE
                    if kind != _TRACE or not is_rule or _HANDLE not in found:
                        continue  # the end of a chain, or its policy
                    # A verdict has the shape of the one in a rule.
                    verdict = data(
                        struct.pack("=HH", 4 + len(found[_VERDICT]), 2)
                        + found[_VERDICT],
                        "trace",
                    )
                    assert isinstance(verdict, Verdict)
                    place = Place(body[0], text(found[_TABLE]), text(found[_CHAIN]))
                    handle = number(found[_HANDLE], "trace")
                    yield Matched(place, handle, verdict.code)


def deciding(matched: list[Matched]) -> list[tuple[Place, int]]:
    """Return the rules that gave a verdict."""
    return [(one.chain, one.handle) for one in matched if one.verdict != Code.CONTINUE]

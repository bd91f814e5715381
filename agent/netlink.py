# SPDX-License-Identifier: GPL-2.0-or-later
"""Netlink (RFC 3549, netlink(7)): requests to the kernel, and what it says.

pyroute2 knows how messages are laid out; the socket and the decoder are ours.
pyroute2's socket waits for the answer to each message alone (246 clients a
second) and is an asyncio loop from 0.9 on; its decoder needs 160..220 ms for
1000 links, `attributes` 12 ms.  Its import costs 21 MB and 0.2 s: load the guard
before this module.

A socket belongs to the network namespace in which it was opened.
"""

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from typing import Any, Self

from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from agent.ports import NetlinkError

ROUTE, NETFILTER = 0, 12  # linux/netlink.h: NETLINK_…
REPLACE, EXCLUSIVE, CREATE = 0x100, 0x200, 0x400  # NLM_F_…
_REQUEST, _ACK, _INTERRUPTED, _DUMP = 0x01, 0x04, 0x10, 0x300
_ERROR, _DONE = 2, 3  # NLMSG_…
_REASON = 1  # NLMSGERR_ATTR_MSG
_SOL_NETLINK = 270
_CAP_ACK, _EXT_ACK, _STRICT = 10, 11, 12  # NETLINK_…
_SO_RCVBUFFORCE = 33

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_ERRNO = struct.Struct("=i")
_REFUSED = _ERRNO.size + _HEADER.size  # the code, the header of the request
_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER

_RECEIVE = 1 << 16  # bytes; the kernel fills at most 32 KiB at a time
_EVENTS_BUFFER = 4 << 20  # bytes: the events of some 1000 links
# Answers in flight: each takes 768 bytes of a receive buffer of 208 KiB.
_WINDOW = 100
_ATTEMPTS = 10  # at a dump that stays the same while it is read

Attributes = Sequence[tuple[str, object]]
"""pyroute2's name of each attribute, and its value as pyroute2 takes it."""

Body = Callable[[Mapping[str, int], Attributes], bytes]


@dataclass(frozen=True, slots=True)
class Request:
    """A message to the kernel; ``what`` says it in words.

    The ``errno`` values in ``fine`` mean that it is so already.
    """

    what: str
    kind: int
    body: bytes
    flags: int = 0
    fine: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Message:
    """A message from the kernel; ``port`` is the socket that caused it, or 0."""

    kind: int
    body: bytes
    port: int = 0


class Netlink:
    """A socket to one subsystem (`ROUTE`, `NETFILTER`); ``with`` closes it.

    It either asks (`do`, `dump`) or, opened with a mask of multicast
    ``groups``, listens (`events`).
    """

    def __init__(self, subsystem: int, groups: int = 0) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, subsystem)
        for option in (_CAP_ACK, _EXT_ACK, _STRICT):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        if groups:
            with suppress(PermissionError):  # then an overrun comes sooner
                self._socket.setsockopt(
                    socket.SOL_SOCKET, _SO_RCVBUFFORCE, _EVENTS_BUFFER
                )
        self._socket.bind((0, groups))
        self._sequence = count(1)
        self.port: int = self._socket.getsockname()[0]

    def fileno(self) -> int:
        """Return the file descriptor, to wait for events on."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def do(self, *requests: Request) -> None:
        """Do what is asked, in order, in as few system calls as possible.

        What follows a refused request is still done.  `NetlinkError` for the
        first that was refused.
        """
        waiting = iter(requests)
        failed: list[NetlinkError] = []
        while window := tuple(islice(waiting, _WINDOW)):
            failed += self._do(window)
        if failed:
            raise failed[0]

    def dump(self, request: Request) -> list[Message]:
        """Return all objects of a kind, as one consistent list."""
        for _ in range(_ATTEMPTS):
            messages: list[Message] = []
            if not self.each(request, messages.append):
                return messages
        raise NetlinkError(errno.EAGAIN, f"{request.what}: it changes all the time")

    def events(self) -> Iterator[Message]:
        """Yield the events that are waiting.

        OSError ENOBUFS: some were lost; `drop_events`, and look anew.
        """
        with suppress(BlockingIOError):
            while True:
                data = self._socket.recv(_RECEIVE, socket.MSG_DONTWAIT)
                for kind, _, _, port, body in _messages(data):
                    yield Message(kind, body, port)

    def drop_events(self) -> None:
        """Forget the events that are waiting."""
        while True:
            try:
                self._socket.recv(_RECEIVE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise

    def _do(self, requests: Sequence[Request]) -> Iterator[NetlinkError]:
        asked = {next(self._sequence): request for request in requests}
        packed = (_pack(r, _REQUEST | _ACK, number) for number, r in asked.items())
        self._socket.send(b"".join(packed))
        while asked:
            for kind, _, number, _, body in _messages(self._socket.recv(_RECEIVE)):
                if kind == _ERROR and number in asked:
                    request, code = asked.pop(number), _code(body)
                    if code and code not in request.fine:
                        yield _refusal(request, code, body[_REFUSED:])

    def each(self, request: Request, take: Callable[[Message], None]) -> bool:
        """Give away each object as it comes; return whether others came or went."""
        asked = next(self._sequence)
        self._socket.send(_pack(request, _REQUEST | _DUMP, asked))
        interrupted = 0
        while True:
            for kind, flags, number, _, body in _messages(self._socket.recv(_RECEIVE)):
                if number != asked:
                    continue
                interrupted |= flags & _INTERRUPTED
                if kind not in {_ERROR, _DONE}:
                    take(Message(kind, body))
                elif (code := _code(body)) and code not in request.fine:
                    details = body[_REFUSED if kind == _ERROR else _ERRNO.size :]
                    raise _refusal(request, code, details)
                else:
                    return bool(interrupted)


def attributes(data: bytes, start: int = 0) -> dict[int, bytes]:
    """Return the attributes in ``data`` from ``start`` on, by type.

    Of a repeated attribute the last one; what does not fit is left out.
    """
    found = {}
    end = len(data)
    while start + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if not _ATTRIBUTE.size <= length <= end - start:
            break
        found[kind & _TYPE_MASK] = data[start + _ATTRIBUTE.size : start + length]
        start += length + 3 & ~3
    return found


def attribute(kind: int, value: bytes) -> bytes:
    """Return the wire form of one attribute."""
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def _messages(data: bytes) -> Iterator[tuple[int, int, int, int, bytes]]:
    start = 0
    while start + _HEADER.size <= len(data):
        length, kind, flags, number, port = _HEADER.unpack_from(data, start)
        yield kind, flags, number, port, data[start + _HEADER.size : start + length]
        start += length + 3 & ~3


def _pack(request: Request, flags: int, number: int) -> bytes:
    body = request.body + bytes(-len(request.body) % 4)
    length = _HEADER.size + len(body)
    return _HEADER.pack(length, request.kind, flags | request.flags, number, 0) + body


def _code(body: bytes) -> int:
    return -int(_ERRNO.unpack_from(body)[0])


def _refusal(request: Request, code: int, details: bytes) -> NetlinkError:
    reason = attributes(details).get(_REASON, b"").rstrip(b"\0")
    text = reason.decode(errors="replace") or os.strerror(code)
    return NetlinkError(code, f"{request.what}: {text}")


def _body(
    kind: Callable[[], Any], fields: Mapping[str, int], attributes: Attributes
) -> bytes:
    message = kind()
    for name, value in fields.items():
        message[name] = value
    message["attrs"] = attributes
    message.encode()
    return bytes(message.data[_HEADER.size :])


link_body: Body = partial(_body, ifinfmsg)
address_body: Body = partial(_body, ifaddrmsg)
route_body: Body = partial(_body, rtmsg)
neighbour_body: Body = partial(_body, ndmsg)
rule_body: Body = partial(_body, fibmsg)

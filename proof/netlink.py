# SPDX-License-Identifier: GPL-2.0-or-later
"""Netlink (RFC 3549, netlink(7)), to read with: whole answers or an error.

A socket belongs to the network namespace in which it was opened.  Unlike the
agent's reader, this one takes nothing that does not fit: what it could not read
would be missing from a proof.
"""

import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Protocol, Self

ROUTE, XFRM, NETFILTER = 0, 6, 12  # linux/netlink.h: NETLINK_…
_REQUEST, _INTERRUPTED, _DUMP = 0x01, 0x10, 0x300  # NLM_F_…
_NOOP, _ERROR, _DONE = 1, 2, 3  # NLMSG_…
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_ERRNO = struct.Struct("=i")
_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
_RECEIVE = 1 << 17  # bytes; the kernel fills at most 32 KiB at a time
_KERNEL = 0  # the port of the kernel (netlink(7))
_PATIENCE = 10.0  # seconds without an answer
_ATTEMPTS = 10  # at a dump that stays the same while it is read


Attributes = Mapping[int, bytes]
"""The value of each attribute, by type."""


class SnapshotError(Exception):
    """What the kernel said is truncated, contradicts itself, or changed meanwhile."""


class AbsentError(SnapshotError):
    """The kernel has no such subsystem."""


@dataclass(frozen=True, slots=True)
class Request:
    """A question to the kernel; ``what`` names its subject in messages."""

    what: str
    kind: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Message:
    """A message from the kernel, without its header."""

    kind: int
    body: bytes


class Kernel(Protocol):
    """One subsystem of a kernel, to be asked.

    Both methods raise `SnapshotError` for anything but a complete answer.
    """

    def ask(self, request: Request) -> Message:
        """Return the one message that answers."""
        ...

    def dump(self, request: Request) -> Sequence[Message]:
        """Return all objects of a kind, as one consistent list."""
        ...


class Netlink:
    """A `Kernel`: a socket to one subsystem; ``with`` closes it."""

    def __init__(self, subsystem: int) -> None:
        """Open it in the namespace one is in; `AbsentError` if there is none."""
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        try:
            self._socket = socket.socket(socket.AF_NETLINK, kind, subsystem)
        except OSError as error:
            raise AbsentError(f"netlink {subsystem}: {error.strerror}") from error
        self._socket.settimeout(_PATIENCE)
        self._socket.bind((0, 0))
        self._sequence = count(1)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, request: Request) -> Message:
        """Return the one message that answers."""
        for kind, _, body in self._answers(request, _REQUEST):
            _refuse(request, kind, body)
            return Message(kind, body)
        raise SnapshotError(f"{request.what}: no answer")

    def dump(self, request: Request) -> Sequence[Message]:
        """Return all objects of a kind, as one consistent list."""
        for _ in range(_ATTEMPTS):
            found: list[Message] = []
            interrupted = 0
            for kind, flags, body in self._answers(request, _REQUEST | _DUMP):
                interrupted |= flags & _INTERRUPTED
                _refuse(request, kind, body)
                if kind == _DONE:
                    break
                found.append(Message(kind, body))
            if not interrupted:
                return found
        raise SnapshotError(f"{request.what}: it changes all the time")

    def _answers(
        self, request: Request, flags: int
    ) -> Iterator[tuple[int, int, bytes]]:
        number = next(self._sequence)
        length = _HEADER.size + len(request.body)
        header = _HEADER.pack(length, request.kind, flags, number, 0)
        self._socket.send(header + request.body)
        while True:
            try:
                data, _, told, sender = self._socket.recvmsg(_RECEIVE)
            except OSError as error:
                raise SnapshotError(f"{request.what}: {error}") from error
            if told & socket.MSG_TRUNC:
                raise SnapshotError(f"{request.what}: a message was truncated")
            if sender[0] != _KERNEL:
                # Whoever may change the namespace may send here, and guess numbers.
                raise SnapshotError(f"{request.what}: not from the kernel")
            for kind, flags_back, sequence, body in messages(data):
                if sequence == number and kind != _NOOP:
                    yield kind, flags_back, body


def _refuse(request: Request, kind: int, body: bytes) -> None:
    if kind not in {_ERROR, _DONE}:
        return
    if len(body) < _ERRNO.size:
        raise SnapshotError(f"{request.what}: a result without a code")
    code = -_ERRNO.unpack_from(body)[0]
    if code:
        raise SnapshotError(f"{request.what}: {os.strerror(code)}")


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield type, flags, sequence number and body of the messages in a datagram."""
    start = 0
    while start < len(data):
        if len(data) - start < _HEADER.size:
            raise SnapshotError("a netlink message without a whole header")
        length, kind, flags, number, _ = _HEADER.unpack_from(data, start)
        if not _HEADER.size <= length <= len(data) - start:
            raise SnapshotError(f"a netlink message of {length} bytes does not fit")
        yield kind, flags, number, data[start + _HEADER.size : start + length]
        start += length + 3 & ~3


def listed(data: bytes, start: int = 0) -> list[tuple[int, bytes]]:
    """Return type and value of each attribute in ``data`` from ``start`` on."""
    found = []
    end = len(data)
    while start < end:
        if end - start < _ATTRIBUTE.size:
            raise SnapshotError("a netlink attribute without a whole header")
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if not _ATTRIBUTE.size <= length <= end - start:
            raise SnapshotError(f"a netlink attribute of {length} bytes does not fit")
        found.append((kind & _TYPE_MASK, data[start + 4 : start + length]))
        start += length + 3 & ~3
    return found


def attributes(data: bytes, start: int = 0) -> Attributes:
    """Return the attributes in ``data`` from ``start`` on, by type."""
    return dict(listed(data, start))


def attribute(kind: int, value: bytes) -> bytes:
    """Return the wire form of one attribute."""
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def need(found: Attributes, kind: int, what: str) -> bytes:
    """Return an attribute that must be there."""
    if kind not in found:
        raise SnapshotError(f"{what}: attribute {kind} is missing")
    return found[kind]


def number(value: bytes | None, what: str, absent: int = 0) -> int:
    """Return a number in network byte order, of any length."""
    if value is None:
        return absent
    if not value:
        raise SnapshotError(f"{what}: a number without bytes")
    return int.from_bytes(value, "big")


def host_number(value: bytes | None, what: str, absent: int = 0) -> int:
    """Return a number in the byte order of this machine, of any length."""
    return absent if value is None else number(value[::-1], what)


def text(value: bytes) -> str:
    """Return a name of the kernel, which ends in a zero byte."""
    return value.rstrip(b"\0").decode(errors="backslashreplace")

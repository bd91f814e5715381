# SPDX-License-Identifier: GPL-2.0-or-later
"""The words of QubesDB: messages and bytes, without a socket.

Both ends speak it: the agent's client and, where there is no Qubes, the
controller's server.  The layout is that of Qubes OS (qubes-core-qubesdb,
``include/qubesdb.h``), checked as in its ``daemon/db-cmds.c``.
"""

import re
import struct
from dataclasses import dataclass
from enum import Enum

MAX_PATH = 63
MAX_DATA = 3071

# type, path with at least one NUL, the padding a C compiler adds, size of the data.
_HEADER = struct.Struct("=B64s3xI")
_PATH = re.compile(rf"[A-Za-z0-9_./:@-]{{0,{MAX_PATH}}}")


class WireError(ValueError):
    """Bytes that are no message, or a value that no message can carry."""


class Kind(Enum):
    """What a message says; the value is its number on the wire."""

    READ = 0
    WRITE = 1
    MULTIREAD = 2
    LIST = 3
    RM = 4
    WATCH = 5
    UNWATCH = 6
    RESP_OK = 7
    RESP_ERROR_NOENT = 8
    RESP_ERROR = 9
    RESP_READ = 10
    RESP_MULTIREAD = 11
    RESP_LIST = 12
    RESP_WATCH = 13


@dataclass(frozen=True, slots=True)
class Message:
    """One request, answer or event; `WireError` if it cannot be sent.

    ``path`` is 0 to 63 characters of ``[A-Za-z0-9_./:@-]``, empty where a list
    of answers ends; ``data`` is 0 to 3071 bytes.
    """

    kind: Kind
    path: str
    data: bytes = b""

    def __post_init__(self) -> None:
        if _PATH.fullmatch(self.path) is None:
            raise WireError(f"{self.path!r} is not a path of QubesDB")
        if len(self.data) > MAX_DATA:
            raise WireError(f"{len(self.data)} bytes of data, {MAX_DATA} at most")


def check_entry(path: str, data: bytes = b"") -> None:
    """Raise `WireError` unless this value can be stored under this path.

    As the daemon has it: the path starts with a slash and does not end with
    one, no part of it starts with a dash, and the data holds no NUL
    (``verify_path``, ``qubesdb_insert``, ``verify_data``).
    """
    Message(Kind.WRITE, path, data)
    if not path.startswith("/") or path.endswith("/") or "/-" in path:
        raise WireError(f"{path!r} is not a key of QubesDB")
    if b"\0" in data:
        raise WireError(f"{path}: data with a NUL")


def encode(message: Message) -> bytes:
    """Return the bytes of a message: 72 of header, then its data."""
    path = message.path.encode("ascii")
    return _HEADER.pack(message.kind.value, path, len(message.data)) + message.data


class Decoder:
    """Turns a stream of bytes, cut anywhere, into messages.

    It holds what was fed and not yet taken, and reads no further than the
    first error: that one is raised again at every call.
    """

    __slots__ = ("_untrusted",)

    def __init__(self) -> None:
        self._untrusted = bytearray()

    def feed(self, untrusted_data: bytes) -> None:
        """Append what came from the other end."""
        self._untrusted += untrusted_data

    def next_message(self) -> Message | None:
        """Return the next message, or None until more is fed, or `WireError`."""
        if len(self._untrusted) < _HEADER.size:
            return None
        number, field, size = _HEADER.unpack_from(self._untrusted)
        if number >= len(Kind):
            raise WireError(f"{number} is not a type of message")
        # Real ends leave what was there before behind the NUL.
        path, nul, _ = field.partition(b"\0")
        if not nul:
            raise WireError("the path does not end")
        if size > MAX_DATA:
            raise WireError(f"{size} bytes of data announced, {MAX_DATA} at most")
        end = _HEADER.size + size
        if len(self._untrusted) < end:
            return None
        data = bytes(self._untrusted[_HEADER.size : end])
        message = Message(Kind(number), path.decode("latin-1"), data)
        del self._untrusted[:end]
        return message

# SPDX-License-Identifier: GPL-2.0-or-later
"""Names that a hostile client asks for, so that tor repeats them.

A label of a name may have any byte (RFC 2181, 11), and tor 0.4.9 says which name is
asked for before it looks whether that is one; 0.4.9.15 does so by SOCKS alone.
"""

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from controller import namespaces
from rules.model import Address

PATIENCE = 30.0  # seconds; only a failing test waits that long
LABEL = 63  # bytes at most
A_IN = struct.pack("!2H", 1, 1)

NAMES = {
    "an answer": b"x\r\n250 OK",
    "a beginning without an end": b"x\r\n650+x",
    "an event": b"x\r\n650 STATUS_CLIENT NOTICE CIRCUIT_NOT_ESTABLISHED ",
    "a name of an onion service": b"x\r\n250 OK.onion",
}

# It ends the event that it is in, and begins another, whose rest is tor's own.
FORGED = (
    b"x:0 CLIENT_PROTOCOL=A NYM_EPOCH=0 SESSION_GROUP=0 ISO_FIELDS="
    + b"A" * 64
    + b"\r\n650 STREAM 600 SENTCONNECT 700 x"
)


@contextmanager
def connecting(net: Path, server: tuple[Address, int], name: bytes) -> Iterator[None]:
    """Ask a SOCKS port for a connection to a name (RFC 1928), and wait for it."""
    with namespaces.inside(net):
        made = socket.create_connection((str(server[0]), server[1]), timeout=PATIENCE)
    with made:
        made.sendall(b"\x05\x01\x00")
        assert made.recv(2) == b"\x05\x00"
        made.sendall(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + b"\0\x50")
        yield


def ask(net: Path, server: tuple[Address, int], name: bytes) -> None:
    """Ask for the address of a name from inside ``net``, and wait for no answer."""
    labels = (label[:LABEL] for label in name.split(b"."))
    wire = b"".join(bytes([len(label)]) + label for label in labels)
    question = struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + wire + b"\0" + A_IN
    with namespaces.inside(net):
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with made:
        made.sendto(question, (str(server[0]), server[1]))

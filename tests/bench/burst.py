# SPDX-License-Identifier: GPL-2.0-or-later
"""Send many packets, each a flow of its own or all of a few, and nothing else.

Run as a program, ``burst COUNT FIRST FLOWS``: it sends ``COUNT`` UDP packets in turn
to ``FLOWS`` ports and hosts of ``PREFIX`` and prints the seconds it took.  On a
virtual cable the whole way of a packet is walked within the call that sends it, so
this is the cost of the way.
"""

import ctypes
import socket
import struct
import sys
import time
from itertools import cycle

PREFIX = "198.51.100."
PAYLOAD = b"x" * 18
BATCH = 512

_libc = ctypes.CDLL(None, use_errno=True)


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("vectors", ctypes.POINTER(_Vector)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    _fields_ = (("header", _Header), ("sent", ctypes.c_uint))


def send(count: int, first: int, flows: int) -> float:
    """Send to ``flows`` places from the number ``first`` on; return the seconds."""
    payload = ctypes.create_string_buffer(PAYLOAD, len(PAYLOAD))
    vector = _Vector(ctypes.addressof(payload), len(PAYLOAD))
    places = [
        ctypes.create_string_buffer(
            struct.pack("=H", socket.AF_INET)
            + struct.pack(">H", 1024 + number % 60_000)
            + socket.inet_aton(f"{PREFIX}{1 + number // 60_000 % 250}")
            + bytes(8),
            16,
        )
        for number in range(first, first + flows)
    ]
    messages = (_Message * count)()
    for message, place in zip(messages, cycle(places), strict=False):
        message.header.name = ctypes.addressof(place)
        message.header.name_length = 16
        message.header.vectors = ctypes.pointer(vector)
        message.header.vector_count = 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("", 40_000))
        descriptor, size = sender.fileno(), ctypes.sizeof(_Message)
        begin = time.perf_counter()
        done = 0
        while done < count:
            at = ctypes.byref(messages, done * size)
            sent = _libc.sendmmsg(descriptor, at, min(BATCH, count - done), 0)
            if sent <= 0:
                raise OSError(ctypes.get_errno(), "sendmmsg")
            done += sent
        return time.perf_counter() - begin


if __name__ == "__main__":
    sys.stdout.write(f"{send(*map(int, sys.argv[1:]))}\n")

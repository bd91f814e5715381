# SPDX-License-Identifier: GPL-2.0-or-later
"""Open very many flows from one client, as fast as it can, and answer them.

Run as a program: ``udp|syn|icmp SOURCE FLOWS`` sends the first packet of each flow
to `TARGETS` again and again, with forged ports; ``echo`` answers at `TARGETS`.  It
prints ``ready`` when it has begun and works until its standard input ends.
"""

import selectors
import socket
import struct
import sys
from collections.abc import Callable
from threading import Event, Thread

TARGETS = tuple(f"198.51.100.{number}" for number in range(101, 107))
PORT = 4007
EACH = 60_000  # ports of a target
FIRST = 1024
BEGUN = 20_000  # flows
_IP = struct.Struct("!BBHHHBBH4s4s")


def _sum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def _udp(port: int, ends: bytes) -> bytes:
    del ends
    return struct.pack("!HHHH", port, PORT, 16, 0) + bytes(8)


def _syn(port: int, ends: bytes) -> bytes:
    words = (port, PORT, 1, 0, 0x50, 0x02, 65535)
    bare = struct.pack("!HHIIBBHHH", *words, 0, 0)
    pseudo = ends + struct.pack("!HH", socket.IPPROTO_TCP, len(bare))
    return struct.pack("!HHIIBBHHH", *words, _sum(pseudo + bare), 0)


def _icmp(port: int, ends: bytes) -> bytes:
    del ends
    bare = struct.pack("!BBHHH", 8, 0, 0, port, 0)
    return struct.pack("!BBHHH", 8, 0, _sum(bare), port, 0)


KINDS: dict[str, tuple[int, Callable[[int, bytes], bytes]]] = {
    "udp": (socket.IPPROTO_UDP, _udp),
    "syn": (socket.IPPROTO_TCP, _syn),
    "icmp": (socket.IPPROTO_ICMP, _icmp),
}


def flood(kind: str, source: str, flows: int, ended: Event) -> None:
    """Send until told to stop."""
    protocol, first = KINDS[kind]
    told = False
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as out:
        while not ended.is_set():
            for number in range(flows):
                target = TARGETS[number // EACH]
                ends = socket.inet_aton(source), socket.inet_aton(target)
                body = first(FIRST + number % EACH, b"".join(ends))
                # The kernel fills in the length and the checksum (raw(7)).
                head = _IP.pack(0x45, 0, 0, 0, 0, 64, protocol, 0, *ends)
                out.sendto(head + body, (target, 0))
                if ended.is_set():
                    return
                if not told and number >= min(flows, BEGUN) - 1:
                    told = True
                    sys.stdout.write("ready\n")
                    sys.stdout.flush()


def echo(ended: Event) -> None:
    """Send each packet back."""
    with selectors.DefaultSelector() as selector:
        for target in TARGETS:
            server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            server.bind((target, PORT))
            server.settimeout(0)
            selector.register(server, selectors.EVENT_READ)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while not ended.is_set():
            for key, _ in selector.select(0.2):
                assert isinstance(key.fileobj, socket.socket)
                _send_back(key.fileobj)


def _send_back(server: socket.socket) -> None:
    try:
        for _ in range(256):
            data, peer = server.recvfrom(64)
            server.sendto(data, peer)
    except BlockingIOError:
        return


def main(words: list[str]) -> None:
    """Work until the standard input ends."""
    ended = Event()
    match words:
        case ["echo"]:
            worker = Thread(target=echo, args=(ended,))
        case [kind, source, flows]:
            worker = Thread(target=flood, args=(kind, source, int(flows), ended))
        case _:
            sys.exit(2)
    worker.start()
    sys.stdin.read()
    ended.set()
    worker.join()


if __name__ == "__main__":
    main(sys.argv[1:])

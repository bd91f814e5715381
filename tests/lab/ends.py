# SPDX-License-Identifier: GPL-2.0-or-later
"""The ends of a probe, each a process of its own (see `tests.lab.prober`).

Run as a program: ``flood ADDRESS PORT RATE``, ``count ADDRESS PORT`` or ``flow
tcp|udp|ping ADDRESS PORT``.  It prints ``ready``, works until its standard
input ends, and prints its `Report` as one line of JSON.
"""

import errno
import json
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Literal

MARKER = b"LEAKPROBE"
NUMBER = struct.Struct("!Q")
SIZE = len(MARKER) + NUMBER.size
TICK = 0.002  # seconds between two bursts of a flood
BEAT = 0.01  # seconds between two messages of a flow
QUIET = 0.3  # seconds without an arrival after which the last has come
LATE = 2.0  # seconds for the echo of the last message, on a machine that is busy
PATIENCE = 20.0  # seconds for a connection
SOURCES = 16  # ports a flood is sent from, so that it is many connections
SO_RCVBUFFORCE, BUFFER = 33, 64 << 20  # bytes
ECHO = {socket.AF_INET: (8, 0), socket.AF_INET6: (128, 129)}  # request, reply
SOCKETS: dict[str, socket.SocketKind] = {
    "tcp": socket.SOCK_STREAM,
    "udp": socket.SOCK_DGRAM,
    "ping": socket.SOCK_RAW,
}
Kind = Literal["tcp", "udp", "ping"]


def number(raw: bytes) -> int:
    """Return the number in a frame or payload of a probe, -1 in any other."""
    at = raw.find(MARKER) + len(MARKER)
    found = at >= len(MARKER) and len(raw) >= at + NUMBER.size
    return int(NUMBER.unpack_from(raw, at)[0]) if found else -1


@dataclass(slots=True)
class Report:
    """What an end has seen so far."""

    begin: float = field(default_factory=time.monotonic)
    end: float = 0.0
    sent: int = 0
    latest: int = -1  # the number that was sent last
    refused: int = 0
    broken: int = 0
    first: float = 0.0
    last: float = 0.0
    gap: float = 0.0
    duplicates: int = 0
    seen: set[int] = field(default_factory=set)
    rest: bytes = b""  # of a TCP stream: the beginning of the next message

    def arrived(self, payload: bytes) -> None:
        """Count a packet that came, once."""
        now, numbered = time.monotonic(), number(payload)
        if numbered in self.seen:
            self.duplicates += 1
        elif numbered >= 0:
            self.gap = max(self.gap, now - self.last) if self.seen else 0.0
            self.first, self.last = self.first or now, now
            self.seen.add(numbered)

    def send(self, transmit: Callable[[bytes], object]) -> None:
        """Send the next number, and count it as sent or refused."""
        numbered = self.sent + self.refused
        try:
            transmit(MARKER + NUMBER.pack(numbered))
            self.sent, self.latest = self.sent + 1, numbered
        except OSError:
            self.refused += 1

    @property
    def patience(self) -> float:
        """How many seconds to wait for another echo, when no more is sent."""
        return QUIET if self.latest in self.seen else LATE

    def tell(self) -> None:
        """Tell the test, as one line of JSON."""
        self.end = self.end or time.monotonic()
        words = asdict(self)
        received = len(words.pop("seen"))
        del words["rest"]
        say(json.dumps(words | {"received": received}))


def say(line: str) -> None:
    """Tell the test."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def opened(kind: socket.SocketKind, address: str, protocol: int = 0) -> socket.socket:
    """Return a socket of the address's family with room for seconds of packets."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    return made


def flood(address: str, port: str, rate: str) -> None:
    """Send until standard input ends."""
    there, per_second = (address, int(port)), int(rate)
    sockets = [opened(socket.SOCK_DGRAM, address) for _ in range(SOURCES)]
    say("ready")

    def to(source: socket.socket, payload: bytes) -> None:
        source.sendto(payload, there)

    report = Report()
    while not select.select([0], [], [], TICK)[0]:
        report.end = time.monotonic()
        due = int((report.end - report.begin) * per_second)
        for turn in range(report.sent + report.refused, due):
            report.send(partial(to, sockets[turn % SOURCES]))
    report.tell()


def count(address: str, port: str) -> None:
    """Receive until standard input ends, and then what is still under way."""
    made = opened(socket.SOCK_DGRAM, address)
    made.bind((address, int(port)))
    say("ready")
    report, quiet = Report(), None
    watched: list[int | socket.socket] = [0, made]
    while ready := select.select(watched, [], [], quiet)[0]:
        if 0 in ready:
            watched, quiet = [made], QUIET
        else:
            report.arrived(made.recv(65535))
    report.tell()


def ping(made: socket.socket, payload: bytes) -> None:
    """Send an echo request (RFC 792, RFC 4443)."""
    kind, _ = ECHO[made.family]
    packet = bytes([kind, 0, 0, 0, *NUMBER.pack(os.getpid())[-2:], 0, 0]) + payload
    words = struct.unpack(f"!{len(packet) // 2}H", packet[: len(packet) & ~1])
    total = sum(words) + (packet[-1] << 8 if len(packet) % 2 else 0)
    checksum = 0xFFFF - total % 0xFFFF  # RFC 1071; in IPv6 the kernel makes its own
    made.send(packet[:2] + checksum.to_bytes(2) + packet[4:])


def echoes(made: socket.socket, kind: Kind, report: Report) -> None:
    """Take in what a socket has received."""
    try:
        data = made.recv(65535)
    except OSError as error:
        report.broken = (kind == "tcp" and error.errno) or 0
        return
    match kind:
        case "tcp":
            report.broken = 0 if data else errno.EPIPE
            report.rest += data
            while len(report.rest) >= SIZE:
                report.arrived(report.rest[:SIZE])
                report.rest = report.rest[SIZE:]
        case "udp":
            report.arrived(data)
        case "ping":
            at = (data[0] & 15) * 4 if made.family == socket.AF_INET else 0
            if data[at] == ECHO[made.family][1]:
                report.arrived(data)


def flow(kind: Kind, address: str, port: str) -> None:
    """Send a message at each beat until standard input ends; count the echoes."""
    icmp = socket.IPPROTO_ICMPV6 if ":" in address else socket.IPPROTO_ICMP
    made = opened(SOCKETS[kind], address, icmp if kind == "ping" else 0)
    report = Report()
    made.settimeout(PATIENCE)
    try:
        made.connect((address, int(port)))
    except OSError as error:
        report.broken = error.errno or errno.ETIMEDOUT
    made.settimeout(0)
    if kind == "tcp":
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    transmit = partial(ping, made) if kind == "ping" else made.send
    say("ready")
    watched: list[int | socket.socket] = [0, made]
    beat = report.begin = time.monotonic()
    while not report.broken:
        pause = max(0.0, beat - time.monotonic())
        ready = select.select(watched, [], [], pause)[0]
        if made in ready:
            echoes(made, kind, report)
        if 0 in ready:
            break
        if time.monotonic() >= beat:
            report.send(transmit)
            beat += BEAT
    sys.stdin.read()
    report.end = time.monotonic()
    while not report.broken and select.select([made], [], [], report.patience)[0]:
        echoes(made, kind, report)
    report.tell()


if __name__ == "__main__":
    programs: dict[str, Callable[..., None]] = {
        "flood": flood,
        "count": count,
        "flow": flow,
    }
    programs[sys.argv[1]](*sys.argv[2:])

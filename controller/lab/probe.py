# SPDX-License-Identifier: GPL-2.0-or-later
"""Try destinations from inside a domain, all at once, and say what happened.

A program of its own: ``python3 -I probe.py '[["tcp", "198.51.100.80", 443], …]'``
prints one word for each: ``reached``, ``refused`` (an ICMP error or a reset came
back), ``no network``, ``nothing`` or ``not allowed`` (there is not even a socket
to try it with).  Nothing but the standard library, because it runs where Ravelin
is not.
"""

import errno
import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

PATIENCE = 2.0  # seconds
# A kernel sends a client few refusals at once (icmpv4_xrlim_allow(), net/ipv4/icmp.c),
# and all attempts are made at once; TCP tries again by itself.
TRIES = 4
PAYLOAD = b"ravelin probe"
# A question for the address of www.example.com (RFC 1035, 4.1).
QUERY = b"\x5a\xa5\1\0\0\1\0\0\0\0\0\0\3www\7example\3com\0\0\1\0\1"
UNROUTABLE = {errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.ENETDOWN}
ICMP = {socket.AF_INET: socket.IPPROTO_ICMP, socket.AF_INET6: socket.IPPROTO_ICMPV6}
ECHO = {socket.AF_INET: b"\x08", socket.AF_INET6: b"\x80"}  # types of echo requests


def attempt(proto: str, address: str, port: int | None) -> str:
    """Return the word for what became of one attempt."""
    version = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        match proto:
            case "tcp":
                made = socket.socket(version, socket.SOCK_STREAM)
            case "udp" | "dns":
                made = socket.socket(version, socket.SOCK_DGRAM)
            case "icmp":
                made = socket.socket(version, socket.SOCK_DGRAM, ICMP[version])
            case _:
                return "unknown protocol"
    except PermissionError:
        # Not to be confused with EACCES for an ICMPv6 error that came back.
        return "not allowed"
    echo = ECHO[version] + bytes(6) + b"\1" + PAYLOAD
    data = {"udp": PAYLOAD, "dns": QUERY, "icmp": echo}.get(proto)
    with made:
        return _outcome(made, (address, port or 0), data)


def _outcome(made: socket.socket, to: tuple[str, int], data: bytes | None) -> str:
    """Connect, and if there is data, wait for anything that answers it."""
    try:
        made.settimeout(PATIENCE)
        made.connect(to)
        if data is not None:
            _ask(made, data)
    except TimeoutError:
        return "nothing"
    except OSError as error:
        return "no network" if error.errno in UNROUTABLE else "refused"
    return "reached"


def _ask(made: socket.socket, data: bytes) -> None:
    """Send until something comes back; `TimeoutError` if nothing does."""
    made.settimeout(PATIENCE / TRIES)
    for _ in range(TRIES):
        made.send(data)
        with suppress(TimeoutError):
            made.recv(2048)
            return
    raise TimeoutError


if __name__ == "__main__":
    wanted = json.loads(sys.argv[1])
    with ThreadPoolExecutor(max(len(wanted), 1)) as pool:
        words = list(pool.map(lambda each: attempt(*each), wanted))
    sys.stdout.write(json.dumps(words))

# SPDX-License-Identifier: GPL-2.0-or-later
"""Try destinations from inside a domain, all at once, and say what happened.

A program of its own: ``python3 -I probe.py '[["tcp", "198.51.100.80", 443], …]'``
prints one word for each: ``reached``, ``refused`` (an ICMP error or a reset came
back), ``no network`` or ``nothing``.  Nothing but the standard library, because
it runs where Ravelin is not.
"""

import errno
import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor

PATIENCE = 2.0  # seconds
PAYLOAD = b"ravelin probe"
# A question for the address of www.example.com (RFC 1035, 4.1).
QUERY = b"\x5a\xa5\1\0\0\1\0\0\0\0\0\0\3www\7example\3com\0\0\1\0\1"
UNROUTABLE = {errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.ENETDOWN}
ECHO = {socket.AF_INET: (socket.IPPROTO_ICMP, 8), socket.AF_INET6: (58, 128)}


def attempt(proto: str, address: str, port: int | None) -> str:
    """Return the word for what became of one attempt."""
    version = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        match proto:
            case "tcp":
                with socket.socket(version, socket.SOCK_STREAM) as tcp:
                    tcp.settimeout(PATIENCE)
                    tcp.connect((address, port))
            case "udp":
                _exchange(version, 0, (address, port), PAYLOAD)
            case "dns":
                _exchange(version, 0, (address, 53), QUERY)
            case "icmp":
                number, kind = ECHO[version]
                echo = bytes([kind, 0, 0, 0, 0, 0, 0, 1]) + PAYLOAD
                _exchange(version, number, (address, 0), echo)
            case _:
                return "unknown protocol"
    except TimeoutError:
        return "nothing"
    except OSError as error:
        return "no network" if error.errno in UNROUTABLE else "refused"
    return "reached"


def _exchange(
    version: int, protocol: int, to: tuple[str, int | None], data: bytes
) -> None:
    with socket.socket(version, socket.SOCK_DGRAM, protocol) as datagram:
        datagram.settimeout(PATIENCE)
        datagram.connect(to)
        datagram.send(data)
        datagram.recv(2048)


if __name__ == "__main__":
    wanted = json.loads(sys.argv[1])
    with ThreadPoolExecutor(max(len(wanted), 1)) as pool:
        words = list(pool.map(lambda each: attempt(*each), wanted))
    sys.stdout.write(json.dumps(words))

# SPDX-License-Identifier: GPL-2.0-or-later
"""A client that sends without end, and all that leaves its gateway."""

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

from tests.e2e.machine import WEB4, Machine
from tests.lab.prober import Flood
from tests.lab.sniffer import EVERY, Sniffer

FLOODED, RATE = 9009, 200


@contextmanager
def tried(made: Machine, client: str) -> Iterator[Sniffer]:
    """Have a client send what it can, and see all that leaves its gateway."""
    target = ip_address(WEB4)
    flood = Flood(made.net(client), made.internet.net, target, FLOODED, rate=RATE)
    with Sniffer(made.net("sys-net"), EVERY) as seen, flood:
        yield seen

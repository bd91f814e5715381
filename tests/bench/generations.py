# SPDX-License-Identifier: GPL-2.0-or-later
"""When each nftables transaction was committed in a namespace.

The kernel counts them (NFT_MSG_GETGEN, net/netfilter/nf_tables_api.c); a process
of its own asks every fraction of a millisecond.
"""

import multiprocessing
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from controller import namespaces

NETFILTER, GET_GENERATION = 12, 0x0A10  # NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN
QUESTION = struct.pack("=IHHIIBBH", 20, GET_GENERATION, 1, 1, 0, 0, 0, 0)
COUNT = struct.Struct(">I")
AT = 16 + 4 + 4  # behind the headers of message, nfnetlink and attribute
EVERY = 0.0003  # seconds


def generation(asked: socket.socket) -> int:
    """Return how many transactions there were."""
    asked.send(QUESTION)
    return int(COUNT.unpack_from(asked.recv(4096), AT)[0])


def _watch(net: Path, pipe: Connection) -> None:
    namespaces.enter(net)
    asked = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER)
    before = generation(asked)
    pipe.send("ready")
    moments: list[float] = []
    while not pipe.poll():
        now = generation(asked)
        if now != before:
            moments.append(time.monotonic())
            before = now
        time.sleep(EVERY)
    pipe.send(moments)


@contextmanager
def commits(net: Path) -> Iterator[list[float]]:
    """Give a list that holds the moments of all transactions afterwards."""
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()
    watching: Any = fork.Process(target=_watch, args=(net, theirs), daemon=True)
    watching.start()
    ours.recv()
    moments: list[float] = []
    try:
        yield moments
    finally:
        ours.send("enough")
        moments += ours.recv()
        watching.join()

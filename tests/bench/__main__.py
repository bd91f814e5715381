# SPDX-License-Identifier: GPL-2.0-or-later
"""Measure Ravelin, as root, on a machine that does nothing else.

``python -m tests.bench [PART …]``: all parts, or some, which are printed only.  With
``--write`` the page is written, of these parts.  It asserts nothing.
"""

import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from controller.syscalls import CLONE_NEWNS, MS_PRIVATE, MS_REC, mount, unshare
from tests.bench.bulk import bulk, packets
from tests.bench.changes import changes, cold
from tests.bench.figures import Figure, write
from tests.bench.long_list import long_list
from tests.bench.memory import cycles, imports, memory
from tests.bench.openvpn import openvpn
from tests.bench.proof import chain, large
from tests.bench.recovery import tor
from tests.bench.scene import Scene, scene
from tests.bench.traffic import flows
from tests.bench.wireguard import of_trixie, wireguard

WRITE = "--write"
PARTS: dict[str, Callable[[Scene], Iterator[Figure]]] = {
    "cold": lambda place: cold(place, clients=500, rounds=3),
    "few": lambda place: changes(place, clients=10, rounds=40),
    "hundred": lambda place: changes(place, clients=100, rounds=40),
    "many": lambda place: changes(place, clients=1000, rounds=40),
    "long": lambda place: long_list(place, rules=10_000, rounds=20),
    "imports": lambda _: imports(),
    "small": lambda place: memory(place, clients=10, changes=1000, limit=50),
    "large": lambda place: memory(place, clients=1000, changes=1000, limit=120),
    "cycles": lambda place: cycles(place, int(os.environ.get("CYCLES", "10000"))),
    "proof": lambda place: large(place, clients=100, rules=100),
    "chain": lambda place: chain(place, clients=20, rules=20, hops=4),
    "bulk": lambda place: bulk(place, seconds=1, rounds=9),
    "packets": lambda place: packets(place, count=20_000, rounds=15),
    "wireguard": lambda place: wireguard(place, seconds=1, rounds=25),
    "trixie": lambda place: of_trixie(place, seconds=1, rounds=25),
    "openvpn": lambda place: openvpn(place, seconds=1, rounds=25),
    "tor": lambda _: tor(rounds=5),
    "flows": lambda place: flows(place, clients=4000, packets=20_000, rounds=7),
}


def main(words: list[str]) -> int:
    """Measure; return 2 if there is no such part."""
    wanted = [word for word in words if word != WRITE]
    if not set(wanted) <= set(PARTS):
        sys.stderr.write(f"expected {WRITE} and some of: {' '.join(PARTS)}\n")
        return 2
    # Its mounts are its own, and told to stop it takes its namespaces away.
    unshare(CLONE_NEWNS)
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    begin = time.monotonic()
    found: list[Figure] = []
    for name in wanted or PARTS:
        with (
            tempfile.TemporaryDirectory(prefix="rvb", dir="/run") as directory,
            scene(Path(directory)) as place,
        ):
            for figure in PARTS[name](place):
                found.append(figure)
                sys.stdout.write(f"{figure.line()}\n")
                sys.stdout.flush()
    minutes = (time.monotonic() - begin) / 60
    if WRITE in words:
        cores = f"{os.cpu_count()} cores, Linux {platform.release()}"
        python = f"Python {platform.python_version()}"
        write(found, f"{cores}, {python}, {time.strftime('%Y-%m-%d')}")
    sys.stdout.write(f"{minutes:.1f} minutes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

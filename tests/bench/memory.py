# SPDX-License-Identifier: GPL-2.0-or-later
"""What an agent has of memory, where it goes, and that it gives everything back."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

from controller import namespaces
from controller.platforms.netns import PYTHON, ROOT
from tests.bench.changes import change, prepared
from tests.bench.dom0 import STATUS
from tests.bench.figures import Figure, at_most
from tests.bench.scene import (
    Gateway,
    Scene,
    address,
    keys_of_client,
    keys_of_list,
    policy,
)

MEMORY, CYCLES = "Memory", "Attach and detach"
TOGETHER = 50  # clients that come and go at a time
# In the order in which an agent imports them.
IMPORTS = (
    "ctypes, json, re, logging",
    "nftables",
    "agent.start",
    "ipaddress",
    "rules.parse",
    "rules.compile",
    "pyroute2.netlink.rtnl.ifinfmsg",
    "agent.links",
    "agent.wiring",
    "firewallvm.__main__",
)
MEASURE = """
import sys
sys.path.insert(0, {root!r})
def now():
    with open("/proc/self/status") as file:
        return next(int(x.split()[1]) for x in file if x.startswith("VmRSS"))
for name in {names!r}:
    exec("import " + name)
    print(now())
"""


def imports() -> Iterator[Figure]:
    """Import one after the other what an agent imports."""
    names = ("sys", *IMPORTS)
    program = MEASURE.format(root=str(ROOT), names=names)
    argv = [PYTHON, "-I", "-c", program]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    before = 0.0
    for name, line in zip(names, done.stdout.split(), strict=True):
        size = int(line) * 1.024 / 1000
        what = "the interpreter" if name == "sys" else f"import {name}"
        yield Figure(MEMORY, what, size - before, "MB")
        before = size
    yield Figure(MEMORY, "all imports", before, "MB")


def memory(scene: Scene, clients: int, changes: int, limit: float) -> Iterator[Figure]:
    """Look at an agent before and after many changes."""
    gateway = prepared(scene, f"memory{clients}", clients)
    gateway.dom0.spawn()
    gateway.dom0.enforced(clients)
    now, most = gateway.memory()
    what = f"{clients} clients with 10 rules each"
    yield at_most(MEMORY, f"{what}, RSS", now, "MB", limit)
    yield at_most(MEMORY, f"{what}, RSS at most", most, "MB", limit)
    change(gateway, clients, changes)
    now, most = gateway.memory()
    yield at_most(MEMORY, f"{what}, RSS after {changes} changes", now, "MB", limit)
    what = f"{what}, RSS at most until then"
    yield at_most(MEMORY, what, most, "MB", limit)
    gateway.dom0.close()


def cycles(scene: Scene, count: int) -> Iterator[Figure]:
    """Attach and detach clients, and compare what is left with what was."""
    gateway = prepared(scene, "cycles", 1)
    gateway.dom0.spawn()
    gateway.dom0.enforced(1)
    _rounds(gateway, max(1, count // TOGETHER // 10))  # caches fill
    before, held = gateway.memory()[0], _held(gateway)
    _rounds(gateway, count // TOGETHER)
    after, left = gateway.memory()[0], _held(gateway)
    what = f"growth over {count} cycles"
    yield at_most(CYCLES, what, after - before, "MB", 1)
    for kind, number in left.items():
        what = f"{kind} left after {count} cycles"
        yield at_most(CYCLES, what, number - held[kind], "", 0, f"there are {number}")
    gateway.dom0.close()


def _rounds(gateway: Gateway, rounds: int) -> None:
    numbers = range(2, 2 + TOGETHER)
    for _ in range(rounds):
        keys: dict[str, bytes] = {}
        for number in numbers:
            keys |= keys_of_list(address(number), policy(number))
            keys |= keys_of_client(number)
        gateway.lay(numbers)
        all_there = b"clients=%d " % (1 + TOGETHER)
        gateway.dom0.timed(keys.items(), STATUS, all_there)
        gone: list[tuple[str, bytes | None]] = [(key, None) for key in keys]
        gateway.dom0.timed(gone, STATUS, b"clients=1 ")
        gateway.cut(numbers)


def _held(gateway: Gateway) -> dict[str, int]:
    """Count what an agent or the kernel could keep."""
    argv = ["nft", "-j", "list", "ruleset"]
    with namespaces.inside(gateway.net):
        done = subprocess.run(argv, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)["nftables"]
    kinds = [(kind, each) for entry in found for kind, each in entry.items()]
    elements = (len(each.get("elem", ())) for kind, each in kinds if kind in HOLD)
    descriptors = Path(f"/proc/{gateway.dom0.pid}/fd")
    return {
        "descriptors": len(list(descriptors.iterdir())),
        "chains": sum(kind == "chain" for kind, _ in kinds),
        "sets and maps": sum(kind in HOLD for kind, _ in kinds),
        "elements": sum(elements),
        "namespaces": len(list((gateway.net.parent).iterdir())),
    }


HOLD = ("set", "map")

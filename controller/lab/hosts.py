# SPDX-License-Identifier: GPL-2.0-or-later
"""Remote hosts of the embedded internet: namespaces of their own behind its router.

They are on a segment of their own, and files below ``remote/`` hold them.  The
router forwards from the first of them on; without one it leads nowhere.
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from agent import sysctl
from controller import namespaces
from controller.lab import wires
from controller.lab.addresses import ROUTER, gateways, mac, remote_interfaces
from controller.ports import PlatformError

INTERFACE = "eth0"
SEGMENT = "remote"  # a bridge of the router
PROGRAMS = "/usr/sbin:/usr/bin:/sbin:/bin"
FORWARDING = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")


class Hosts:
    """The hosts behind the router whose namespace is ``router``."""

    def __init__(self, files: Path, router: Path) -> None:
        self.files = files
        self.router = router

    def net(self, name: str) -> Path:
        """Return the file of a host's namespace."""
        return self.files / "remote" / name

    def add(self, name: str, numbers: Sequence[int]) -> Path:
        """Make a host with `addresses.remote` of every number; return its namespace.

        In place of any of that name, with all that ran there.
        """
        net = self.net(name)
        clear(net)
        net.parent.mkdir(mode=0o700, exist_ok=True)
        namespaces.create(net)
        with namespaces.inside(self.router):
            if SEGMENT not in (found for _, found in socket.if_nameindex()):
                wires.bridge(SEGMENT)
                wires.configure(SEGMENT, remote_interfaces(ROUTER))
                forward()
            # Its number has at most three digits, and a name 15 characters.
            port = f"remote{numbers[0]}"
            wires.plug(port, SEGMENT, INTERFACE, mac(numbers[0]), net)
        own = [each for number in numbers for each in remote_interfaces(number)]
        with namespaces.inside(net):
            wires.configure("lo", ())
            wires.configure(INTERFACE, own, gateways(own[:2]))
        return net

    def names(self) -> tuple[str, ...]:
        """Return the hosts that are there."""
        folder = self.net("")
        return tuple(p.name for p in folder.iterdir()) if folder.is_dir() else ()


def forward() -> None:
    """Make the namespace of the calling thread a router."""
    for key in FORWARDING:
        sysctl.write(key, 1)


def clear(net: Path) -> None:
    """Remove a namespace with all that runs and all that is plugged in there."""
    if net.exists():
        namespaces.kill_all(net)
        # The kernel is slow to clear a namespace; a cable is not.
        with suppress(OSError), namespaces.inside(net):
            wires.delete(*(name for _, name in socket.if_nameindex()))
        namespaces.remove(net)


def find(program: str) -> str:
    """Return where a program is; `PlatformError` says that it is not installed."""
    found = shutil.which(program, path=PROGRAMS)
    if found is None:
        raise PlatformError(f'uplink = "lab": {program} is not installed')
    return found


def run(net: Path, program: str, *words: object) -> str:
    """Run a program in a namespace to its end, and return what it wrote.

    A daemon ends when its child is ready.  `PlatformError` has its last words.
    """
    with namespaces.inside(net):
        done = subprocess.run(  # noqa: S603 - the words are ours
            [find(program), *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": PROGRAMS, "HOME": os.devnull},
        )
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip()
        raise PlatformError(f'uplink = "lab": {program}: {said}')
    return done.stdout

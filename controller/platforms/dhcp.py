# SPDX-License-Identifier: GPL-2.0-or-later
"""A DHCP client for a card that was moved into a NetVM.

It is busybox's udhcpc (package busybox or udhcpc), in the domain's network and
with a uid of its own, and it tells the LAN nothing but the card's MAC address.
What it learns is put to use by `controller.platforms.dhcp_event`.
"""

import os
import shutil
from pathlib import Path

from controller import namespaces
from controller.confine import Confinement, launch, rights_of_a_dhcp_client
from controller.launches import UIDS
from controller.platforms.daemons import CODE, ROOT
from controller.platforms.netns import RESOLV, RESOLV_CONF, Netns
from controller.platforms.processes import open_log, trim
from controller.view import View

UID = UIDS.start - 1  # agents come later
PROGRAMS = "/usr/sbin:/usr/bin:/sbin:/bin"
NONE = "{0}: no DHCP client here (apt install busybox), configure it in the NetVM"
OPTIONS = (
    "--foreground",
    "--retries=3",
    "--timeout=1",  # seconds between two questions
    "--tryagain=5",  # seconds between two rounds of them
    "--no-default-options",
    "-O",
    "subnet",
    "-O",
    "router",
    "-O",
    "dns",
    "--vendorclass=",
)


class Dhcp:
    """Starts a client for each card; it ends with the domain, or with us."""

    def __init__(self, platform: Netns) -> None:
        self._platform = platform
        self._clients: list[int] = []

    def configure(self, domain: str, name: str) -> tuple[str, ...]:
        """Have a client for the card ``name`` in a domain; return what to know.

        One that is there already stays, and its log within bounds.
        """
        self._clients = [pid for pid in self._clients if not _ended(pid)]
        program = _client()
        if not program:
            return (NONE.format(name),)
        event = str(CODE / "bin" / "dhcp-event")
        argv = (*program, *OPTIONS, f"--interface={name}", f"--script={event}")
        net = self._platform.net(domain)
        log = self._platform.log(f"{domain}.dhcp")
        if any(_runs(pid, argv) for pid in namespaces.processes(net)):
            trim(log)
            return ()
        resolv = self._platform.resolv(domain)
        resolv.mkdir(mode=0o755, parents=True, exist_ok=True)
        os.chown(resolv, UID, UID)
        let_in = {RESOLV: resolv, CODE: ROOT}
        view = View(domain, let_in=let_in, resolv_conf=RESOLV_CONF)
        confinement = Confinement(net, view, rights_of_a_dhcp_client(UID))
        with open_log(log) as output:
            pid = launch(confinement, argv, env={"PATH": PROGRAMS}, output=output)
        self._clients.append(pid)
        return ()


def _client() -> tuple[str, ...]:
    if alone := shutil.which("udhcpc", path=PROGRAMS):
        return (alone,)
    busybox = shutil.which("busybox", path=PROGRAMS)
    return (busybox, "udhcpc") if busybox else ()


def _ended(pid: int) -> bool:
    """Let go of a child that has ended; return whether it has."""
    try:
        return os.waitpid(pid, os.WNOHANG) != (0, 0)
    except ChildProcessError:
        return True


def _runs(pid: int, argv: tuple[str, ...]) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
    except OSError:  # it has ended
        return False
    return words == [os.fsencode(word) for word in argv]

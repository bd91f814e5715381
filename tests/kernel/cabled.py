# SPDX-License-Identifier: GPL-2.0-or-later
"""A gateway of cables alone, whose far ends the test holds, on one processor."""

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rules.facts import CLIENT_GROUP, UPLINK_GROUP
from rules.objects import GUARD
from tests.proof.namespaces_apart import apart

VIF_MAC = "fe:ff:ff:ff:ff:ff"
MACS = {"vif1.0": "00:16:3e:5e:6c:00", "vif2.0": "00:16:3e:5e:6c:01"}
CLIENTS = {
    "vif1.0": {4: "10.137.0.5", 6: "fd09:24ef:4179::a89:5"},
    "vif2.0": {4: "10.137.0.6", 6: "fd09:24ef:4179::a89:6"},
}
SERVER = {4: "198.51.100.9", 6: "2001:db8:9::9"}
CABLE = """
link add {name} address {mac} type veth peer name far-{name}
link set far-{name} up
link set {name} group {group} up
"""


@contextmanager
def cabled(macs: Mapping[str, str], *lines: str) -> Iterator[None]:
    """Enter a namespace with these devices, each cabled to a ``far-`` one.

    ``lines`` are for ip(8), after the devices are there.  A veth hands over on the
    processor of who sends, in order and before the call returns.
    """
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(processors)})
    try:
        with apart():
            ip("link set lo up", *map(cable, macs, macs.values()), *lines)
            yield
    finally:
        os.sched_setaffinity(0, processors)


def cable(name: str, mac: str) -> str:
    """Return the lines of ip(8) that make a device and its far end."""
    group = CLIENT_GROUP if name.startswith("vif") else UPLINK_GROUP
    return CABLE.format(name=name, mac=mac, group=group)


def known() -> Iterator[str]:
    """Yield what lets the guard know the clients."""
    for device, addresses in CLIENTS.items():
        for version, address in addresses.items():
            framed = f"{device} . {MACS[device]} . {address}"
            yield f"add element {GUARD} clients{version} {{ {framed} }}\n"
            yield f"add element {GUARD} addresses{version} {{ {address} }}\n"


def ip(*lines: str) -> None:
    batch = "\n".join(lines)
    subprocess.run(["ip", "-batch", "-"], input=batch, text=True, check=True)


def nft(script: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=script, text=True, check=True)

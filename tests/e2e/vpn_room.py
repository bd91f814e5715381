# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine whose AppVMs share one tunnel, by the real command, of either kind.

::

    work, personal -- sys-vpn -- sys-net -- internet: router 192.0.2.1, the provider
                          \\_______ tunnel _______/   web 198.51.100.80

The provider is a real server and a resolver in the lab's internet: what leaves the
tunnel comes to the same servers as what does not, from an address that the provider
gave and not from a NetVM's.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_interface
from itertools import cycle
from socket import if_nametoindex
from typing import ClassVar

from agent.netlink import ROUTE, Netlink
from agent.rtnetlink import add_address, delete_link, set_link
from controller import namespaces
from tests.e2e.machine import PACE, WEB4, Machine, becomes, command_line, until
from tests.lab.sniffer import EVERY, Packet, Sniffer

PROVIDER = "192.0.2.1"
OTHER_END = "198.51.100.81"  # the provider has a server there too, if a test has one
SECRET_NAME, SECRET = "in.tunnel", "198.51.100.80"
PATIENCE = 90.0 * PACE  # seconds; only a failing test waits that long

OUTSIDE = """
[domains.sys-net]
personality = "netvm"
uplink = "lab"
"""


def policy_of(personality: str, config: str) -> str:
    """Return the policy of a machine whose VPN is of some kind, by some file."""
    return f"""{OUTSIDE}
[domains.sys-vpn]
personality = "{personality}"
netvm = "sys-net"
config = "{config}"

[domains.work]
netvm = "sys-vpn"
firewall = [
  "accept specialtarget=dns", "accept proto=tcp dstports=80",
  "accept proto=tcp dstports=7", "accept proto=udp dstports=4433",
  "accept proto=udp dstports=9009",
]

[domains.personal]
netvm = "sys-vpn"
firewall = ["accept specialtarget=dns", "accept proto=tcp dstports=443"]
"""


@dataclass
class VpnRoom:
    """The machine; a kind has a provider, a profile's file and a daemon.

    ``AT`` is how its ``give_good`` is told of a host.
    """

    machine: Machine
    policy: str  # that the room is for
    # A SYN that is lost is sent again after a second: a new connection is quicker,
    # but for a machine that is too busy to answer as soon.
    _patience: Iterator[float] = field(
        default_factory=lambda: cycle((0.25, 0.25, 1.0)), init=False, repr=False
    )
    CONFIG: ClassVar[str]
    DAEMON: ClassVar[bytes]
    INSIDE: ClassVar[tuple[str, ...]]  # how addresses begin that the provider gives
    AT: ClassVar[str]

    def give(self, text: str, name: str = "") -> None:
        """Put a file beside the policy, as a user would; mostly the profile."""
        file = self.machine.policy.parent / (name or self.CONFIG)
        file.touch(mode=0o600)
        file.write_text(text)

    def clear(self) -> None:
        """Take away all but the NetVM; the policy is the room's, and not up yet."""
        self.machine.policy.write_text(OUTSIDE)
        self.machine.up()
        self.machine.policy.write_text(self.policy)
        self.machine.internet.set_names({})

    def vpn(self) -> dict[str, object]:
        """Return what status says of the VPN."""
        return self.machine.status()["sys-vpn"]

    def is_up(self) -> bool:
        return self.vpn()["state"] == "up"

    def comes_up(self) -> None:
        until(self.is_up, PATIENCE)

    def says(self, problem: str | None) -> None:
        """Wait until status names this cause, or none.

        Before, it may have no uplink yet, or no daemon that runs; and what was killed
        again and again is named for ten seconds.
        """
        becomes(lambda: self.vpn()["problem"], problem, PATIENCE)

    def seen_from(self, domain: str, url: str = f"http://{WEB4}/") -> str:
        """Return whom a web server takes a domain for, nothing if not reached."""
        words = self.machine.curl_plain(domain, url).out.split()
        return words[1] if words else ""

    def closed(self) -> bool:
        """Say whether a client does not get out at all."""
        return not self.machine.reaches("work", WEB4)

    def flows(self) -> bool:
        """Say whether a client gets out, and by the tunnel."""
        seen = self.machine.taken_for("work", within=next(self._patience))
        return seen.startswith(self.INSIDE)

    def daemons(self) -> list[int]:
        return self._running(self.DAEMON, first=True)

    def daemon(self) -> int:
        """Return the pid of the daemon in the VPN, once there is one."""
        return until(self.daemons, PATIENCE)[0]

    def agent(self) -> int:
        return until(lambda: self._running(b"vpn", first=False), PATIENCE)[0]

    def _running(self, word: bytes, *, first: bool) -> list[int]:
        place = slice(0, 1) if first else slice(-1, None)
        pids = self.machine.processes("sys-vpn")
        return [pid for pid in pids if command_line(pid)[place] == [word]]

    def sniffer(self) -> Sniffer:
        """Return a capture of all that the VPN sends to its netvm."""
        return Sniffer(self.machine.net("sys-net"), EVERY)


def sent(sniffer: Sniffer) -> list[Packet]:
    """Return what came out of the VPN's uplink."""
    return [
        packet
        for packet in sniffer.packets
        if not packet.outgoing and packet.interface.startswith("vif")
    ]


def leaks(sniffer: Sniffer, outer: Callable[[Packet], bool]) -> list[Packet]:
    """Return what of it neither is ``outer``, the tunnel, nor keeps the link."""
    other = [packet for packet in sent(sniffer) if not packet.neighbourly]
    return [packet for packet in other if packet.marked or not outer(packet)]


def tunnel(sniffer: Sniffer, outer: Callable[[Packet], bool]) -> list[Packet]:
    """Return what of it is the tunnel."""
    return [p for p in sent(sniffer) if outer(p) and not p.marked]


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def impostor(made: VpnRoom, device: str, own: str) -> None:
    """Put another device in the place of the tunnel's, at one blow."""
    name = "impostor"
    made.machine.tool("sys-vpn", *f"ip link add {name} type veth peer name eve".split())
    made.machine.tool("sys-vpn", *["ip", "link", "set", "eve", "up"])
    with namespaces.inside(made.machine.net("sys-vpn")), Netlink(ROUTE) as kernel:
        theirs, ours = if_nametoindex(name), if_nametoindex(device)
        kernel.do(
            delete_link(ours),
            set_link(theirs, name=device),
            add_address(theirs, ip_interface(f"{own}/32")),
            set_link(theirs, up=True),
        )

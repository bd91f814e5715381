# SPDX-License-Identifier: GPL-2.0-or-later
"""A router between two TUN devices, with a client's rules in its forward chain.

What is written to the first device and accepted comes out of the second; what
is refused is counted.  Both numbers together must be what was sent.
"""

import ctypes
import fcntl
import os
import select
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import nftables

from rules.decide import Packet
from tests.kernel.first_packets import first_packet, number_of

_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TUN_NO_PI = 0x1001
_BATCH = 200
_PATIENCE = 20.0
"""Seconds until a packet that should come out counts as lost."""

LINKS = """
link set lo up
link set in0 txqueuelen 5000
link set out0 txqueuelen 5000
link set in0 up
link set out0 up
address add 192.0.2.1/32 dev out0
address add 2001:db8::1/128 dev out0 nodad
route add 10.0.0.0/8 dev in0
route add fd00::/96 dev in0
route add default dev out0
route add ::/0 dev out0
"""
SETTINGS = {
    "ipv4/ip_forward": "1",
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/in0/rp_filter": "0",
    "ipv6/conf/all/forwarding": "1",
    "netfilter/nf_conntrack_checksum": "0",
}
# Half of the packets are translated, and all that no route leads to: rules are
# about the destination that the client wrote.
BASE = """
add table ip qubes
add chain ip qubes refuse
add rule ip qubes refuse counter drop
add chain ip qubes dstnat { type nat hook prerouting priority dstnat; }
add rule ip qubes dstnat ip saddr & 0.0.0.1 == 1 dnat to 198.51.100.1
add rule ip qubes dstnat ip daddr { 0.0.0.0/8, 10.0.0.0/8, 127.0.0.0/8, \
192.0.2.1, 224.0.0.0/3 } dnat to 198.51.100.1
add chain ip qubes forward { type filter hook forward priority filter; }
add table ip6 qubes
add chain ip6 qubes refuse
add rule ip6 qubes refuse counter drop
add chain ip6 qubes dstnat { type nat hook prerouting priority dstnat; }
add rule ip6 qubes dstnat ip6 saddr & ::1 == ::1 dnat to 2001:db8:1::1
add rule ip6 qubes dstnat ip6 daddr { ::/127, fd00::/96, fe80::/10, ff00::/8, \
2001:db8::1 } dnat to 2001:db8:1::1
add chain ip6 qubes forward { type filter hook forward priority filter; }
"""


@dataclass(slots=True)
class Tunnels:
    """The two devices, and libnftables in their namespace."""

    inner: int
    outer: int
    nft: nftables.Nftables
    sent: int = 0

    def apply(self, script: str) -> str:
        code, output, error = self.nft.cmd(script)
        assert code == 0, error
        return output

    def accepted(self, table: str, packets: Sequence[Packet]) -> list[bool]:
        """Send each packet once; return whether it came out."""
        start, refused = self.sent + 1, self._refused(table)
        self.sent += len(packets)
        found: set[int] = set()
        for number, packet in enumerate(packets, start):
            os.write(self.inner, first_packet(packet, number))
            if number % _BATCH == 0:
                found.update(self._out())
        deadline = monotonic() + _PATIENCE
        while True:
            found.update(self._out())
            out = [number in found for number in range(start, self.sent + 1)]
            ended = sum(out) + self._refused(table) - refused
            if ended == len(packets):
                return out
            assert monotonic() < deadline, f"{ended} of {len(packets)} accounted for"
            select.select([self.outer], [], [], 0.1)

    def _refused(self, table: str) -> int:
        text = self.apply(f"list chain {table} refuse")
        return int(text.split("packets ")[1].split()[0])

    def _out(self) -> Iterator[int]:
        with suppress(BlockingIOError):
            while True:
                yield number_of(os.read(self.outer, 2048))


def _device(name: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    request = struct.pack("16sH22x", name.encode(), _IFF_TUN_NO_PI)
    fcntl.ioctl(device, _TUNSETIFF, request)
    return device


@contextmanager
def tunnels() -> Iterator[Tunnels]:
    """Enter a network namespace that ends with the context."""
    libc = ctypes.CDLL(None, use_errno=True)
    with ExitStack() as stack:
        home = os.open("/proc/self/ns/net", os.O_RDONLY)
        stack.callback(os.close, home)
        assert libc.unshare(_CLONE_NEWNET) == 0
        stack.callback(libc.setns, home, _CLONE_NEWNET)
        inner, outer = _device("in0"), _device("out0")
        stack.callback(os.close, inner)
        stack.callback(os.close, outer)
        for setting, value in SETTINGS.items():
            Path("/proc/sys/net", setting).write_text(value)
        subprocess.run(["ip", "-batch", "-"], input=LINKS, text=True, check=True)
        found = Tunnels(inner, outer, nftables.Nftables())
        found.apply(BASE)
        yield found

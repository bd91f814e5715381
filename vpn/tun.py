# SPDX-License-Identifier: GPL-2.0-or-later
"""The tun device of a tunnel (kernel: networking/tuntap.rst).

The agent makes it, so a daemon needs no capability to use it: as its owner it
may open the device by name, or it is given the open file.  The device is
persistent, so that it outlives the daemon; without one its packets go nowhere.
"""

import fcntl
import os
import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from socket import if_nametoindex

from agent import sysctl
from agent.hardening import Role
from agent.netlink import ROUTE, Netlink
from agent.ports import NetlinkError
from agent.rtnetlink import Interface, add_address, delete_link, set_link
from rules.facts import Uplink
from rules.model import Family, family

CLONE = "/dev/net/tun"

# linux/if_tun.h
_SET_IFF, _SET_PERSIST, _SET_OWNER = 0x400454CA, 0x400454CB, 0x400454CC
_TUN, _NO_HEADER, _NEW = 0x0001, 0x1000, 0x8000  # IFF_TUN, IFF_NO_PI, IFF_TUN_EXCL
_REQUEST = struct.Struct("16sH22x")  # struct ifreq: name, flags


@dataclass(slots=True)
class Tun:
    """A tun device; ``file`` is its one queue while this end holds it, or -1."""

    name: str
    index: int
    file: int = -1
    addresses: tuple[Interface, ...] = ()
    _kernel: Netlink = field(default_factory=lambda: Netlink(ROUTE), repr=False)

    def configure(self, addresses: Sequence[Interface], mtu: int) -> None:
        """Give the device its addresses, its MTU in bytes, and set it up.

        `NetlinkError` if it is gone or the kernel refuses.
        """
        families = {family(address.ip) for address in addresses}
        version = Role.IPV6 if Family.IPV6 in families else Role.NO_IPV6
        sysctl.harden(version, self.name)
        sysctl.harden(Role.UPLINK, self.name)
        self._kernel.do(
            set_link(self.index, mtu=mtu),
            *(add_address(self.index, address) for address in addresses),
            set_link(self.index, up=True),
        )
        self.addresses = tuple(addresses)

    def resize(self, mtu: int) -> None:
        """Change the MTU, in bytes."""
        self._kernel.do(set_link(self.index, mtu=mtu))

    def down(self) -> None:
        """Take the device out of use; it keeps its IPv4 addresses."""
        self._kernel.do(set_link(self.index, up=False))

    def there(self) -> bool:
        """Whether the device is still the one that was made."""
        with suppress(OSError):
            return if_nametoindex(self.name) == self.index
        return False

    def release(self) -> None:
        """Let go of the queue, so that a daemon can open the device by name."""
        if self.file >= 0:
            os.close(self.file)
            self.file = -1

    def delete(self) -> None:
        """Remove the device, if it is there, and let go of it."""
        self.release()
        if self.there():
            self._kernel.do(delete_link(self.index))
        self._kernel.close()

    def uplink(self) -> Uplink:
        """Return the device as the way out of clients: `Facts.tunnel`."""
        own = frozenset(address.ip for address in self.addresses)
        return Uplink(self.name, self.index, own)


def create(name: str, owner: int) -> Tun:
    """Make a tun device that the user ``owner`` may use.

    Whatever has that name goes: an earlier one of ours, whose daemon ends with
    it, or an impostor.  `NetlinkError` if the kernel refuses.
    """
    remove(name)
    try:
        file = os.open(CLONE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise NetlinkError(error.errno, f"{CLONE}: {error.strerror}") from error
    try:
        wanted = _REQUEST.pack(name.encode(), _TUN | _NO_HEADER | _NEW)
        fcntl.ioctl(file, _SET_IFF, wanted)
        fcntl.ioctl(file, _SET_OWNER, owner)
        fcntl.ioctl(file, _SET_PERSIST, 1)
        return Tun(name, if_nametoindex(name), file)
    except OSError as error:
        os.close(file)
        raise NetlinkError(error.errno, f"add tun {name}: {error.strerror}") from error


def remove(*names: str) -> None:
    """Remove the devices of these names that are there."""
    found: list[int] = []
    for name in names:
        with suppress(OSError):
            found.append(if_nametoindex(name))
    _delete(found)


def _delete(indexes: Iterable[int]) -> None:
    with Netlink(ROUTE) as kernel:
        kernel.do(*map(delete_link, indexes))

# SPDX-License-Identifier: GPL-2.0-or-later
"""The tun device of a tunnel (kernel: networking/tuntap.rst).

The agent makes it, so a daemon needs no capability to use it: as its owner it
may open the device by name, or it is given the open file.  The device is
persistent, so that it outlives the daemon; without one its packets go nowhere.
The loop gives it addresses and sets it up (`rules.facts.Tunnel`).
"""

import fcntl
import os
import struct
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from socket import if_nametoindex

from agent.netlink import ROUTE, Netlink
from agent.ports import NetlinkError
from agent.rtnetlink import delete_link

CLONE = "/dev/net/tun"

# linux/if_tun.h
_SET_IFF, _SET_PERSIST, _SET_OWNER = 0x400454CA, 0x400454CB, 0x400454CC
_TUN, _NEW = 0x0001, 0x8000  # IFF_TUN, IFF_TUN_EXCL
_REQUEST = struct.Struct("16sH22x")  # struct ifreq: name, flags


class Framing(Enum):
    """What stands before each packet in a device's file, as flags of it.

    ``SEGMENTS``: a packet may be TCP or UDP of up to 64 KiB, to be cut later.
    """

    BARE = 0x1000  # IFF_NO_PI
    HEADER = 0  # struct tun_pi
    SEGMENTS = 0x1000 | 0x4000  # IFF_VNET_HDR: struct virtio_net_hdr


@dataclass(slots=True)
class Tun:
    """A tun device; ``file`` is its one queue while this end holds it, or -1."""

    name: str
    index: int
    file: int = -1

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
            remove(self.name)


def create(name: str, owner: int, framing: Framing = Framing.BARE) -> Tun:
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
        wanted = _REQUEST.pack(name.encode(), _TUN | _NEW | framing.value)
        fcntl.ioctl(file, _SET_IFF, wanted)
        fcntl.ioctl(file, _SET_OWNER, owner)
        fcntl.ioctl(file, _SET_PERSIST, 1)
        return Tun(name, if_nametoindex(name), file)
    except OSError as error:
        os.close(file)
        raise NetlinkError(error.errno, f"add tun {name}: {error.strerror}") from error


def remove(name: str) -> None:
    """Remove the device of that name, if there is one."""
    try:
        index = if_nametoindex(name)
    except OSError:
        return
    with Netlink(ROUTE) as kernel:
        kernel.do(delete_link(index))

# SPDX-License-Identifier: GPL-2.0-or-later
"""A client's interface sends each datagram in a frame of its own.

An application may hand the kernel many datagrams of UDP as one (UDP_SEGMENT,
udp(7)).  A pair of virtual cables passes that on as it is: to netfilter it is one
packet with one header, and only the socket at its end gets each of them.  So no rule
could count them, nor see how short they are.

Whoever has CAP_NET_ADMIN here could undo it; no command in a domain has.
"""

import struct
from functools import cache

from agent.netlink import Netlink, Request, attribute, attributes

GENERIC = 16  # NETLINK_GENERIC
_HEADER = struct.Struct("=BBH")  # struct genlmsghdr: command, version, reserved
_U16, _U32 = struct.Struct("=H"), struct.Struct("=I")
_CONTROL, _GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 0x10, 3, 1, 2  # linux/genetlink.h
# linux/ethtool_netlink.h: ETHTOOL_MSG_… and ETHTOOL_A_…
_SET_FEATURES, _DEVICE, _WANTED, _INDEX = 12, 1, 3, 1
_BITS, _BIT, _NAME = 3, 1, 2
_NESTED = 0x8000  # NLA_F_NESTED
_TOGETHER = b"tx-udp-segmentation\0"


def send_alone(index: int) -> None:
    """Have an interface of this namespace send datagrams one by one."""
    # A bit that is named and not set is cleared.
    bit = _nested(_BITS, _nested(_BIT, attribute(_NAME, _TOGETHER)))
    device = _nested(_DEVICE, attribute(_INDEX, _U32.pack(index)))
    body = _HEADER.pack(_SET_FEATURES, 1, 0) + device + _nested(_WANTED, bit)
    with Netlink(GENERIC) as kernel:
        kernel.do(Request("send datagrams alone", _family(), body))


@cache
def _family() -> int:
    """Return the number by which this kernel knows ethtool's messages."""
    body = _HEADER.pack(_GET_FAMILY, 1, 0)
    with Netlink(GENERIC) as kernel:
        for message in kernel.dump(Request("list netlink families", _CONTROL, body)):
            found = attributes(message.body, _HEADER.size)
            if found[_FAMILY_NAME] == b"ethtool\0":
                return int(_U16.unpack(found[_FAMILY_ID])[0])
    raise OSError("this kernel has no netlink for ethtool")


def _nested(kind: int, value: bytes) -> bytes:
    return attribute(kind | _NESTED, value)

# SPDX-License-Identifier: GPL-2.0-or-later
"""End the connections of clients at ports where tor listens no more (sock_diag(7)).

A flow that is cut is forgotten by the kernel between its two ends, and neither hears
of it.  tor would keep its end, with the stream behind it, for as long as the other
side of Tor does; and no count of flows has it any more, so a client that asks for one
identity after the other could have as many as tor has room for.
"""

import logging
import struct
from collections.abc import Iterable, Iterator
from errno import ENOENT

from agent.netlink import Netlink, Request
from agent.rtnetlink import NUMBERS
from rules.model import family
from torvm.listeners import Kind, Listener

log = logging.getLogger(__name__)

SOCK_DIAG = 4  # NETLINK_SOCK_DIAG
_BY_FAMILY, _DESTROY = 20, 21  # linux/sock_diag.h
_TCP = 6
_STATES = 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 8  # of those with another end
# struct inet_diag_req_v2: family, protocol, extensions, states; then who it is, 48
# bytes that begin with our port, the other's, and our address.
_REQUEST = struct.Struct("=BBBxI")
_WHO = slice(4, 52)  # of struct inet_diag_msg
_REST, _OWN = 46, slice(4, 20)
_GONE = frozenset({ENOENT})


def sever(closed: Iterable[Listener]) -> None:
    """End what is connected to these places; what cannot be is logged."""
    places = [place for place in closed if place.kind is not Kind.DNS]
    if not places:
        return
    try:
        with Netlink(SOCK_DIAG) as kernel:
            kernel.do(*(each for place in places for each in _ends(kernel, place)))
    except OSError as error:
        log.warning("connections of clients stay with tor: %s", error)


def _ends(kernel: Netlink, place: Listener) -> Iterator[Request]:
    head = _REQUEST.pack(NUMBERS[family(place.address)], _TCP, 0, _STATES)
    asked = head + place.port.to_bytes(2) + bytes(_REST)
    for message in kernel.dump(Request("list connections", _BY_FAMILY, asked)):
        who = message.body[_WHO]
        if who[_OWN].startswith(place.address.packed):
            yield Request("end a connection", _DESTROY, head + who, fine=_GONE)

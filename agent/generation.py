# SPDX-License-Identifier: GPL-2.0-or-later
"""The generation of the ruleset: one number that tells whether anybody changed it.

Every transaction, whoever makes it, raises the generation of its network
namespace by one (net/netfilter/nf_tables_api.c).  Comparing it with the one
after its own last load is how an agent notices that somebody else's came after.
"""

import socket
import struct
from weakref import finalize

_NETFILTER = 12  # linux/netlink.h
_GET = 10 << 8 | 16  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETGEN
_REQUEST = 1  # NLM_F_REQUEST
_HEADER = struct.Struct("=IHHII")
_BODY = 4  # bytes of struct nfgenmsg
_ASK = _HEADER.pack(_HEADER.size + _BODY, _GET, _REQUEST, 1, 0) + bytes(_BODY)
_NUMBER = struct.Struct(">I")
_AT = _HEADER.size + _BODY + 4  # NFTA_GEN_ID is the first attribute
_RECEIVE = 4096  # bytes


class Generation:
    """Reads the generation of the network namespace it was made in."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, _NETFILTER)
        self._socket.bind((0, 0))
        finalize(self, self._socket.close)

    def read(self) -> int:
        """Return the number of the last transaction."""
        self._socket.send(_ASK)
        return int(_NUMBER.unpack_from(self._socket.recv(_RECEIVE), _AT)[0])

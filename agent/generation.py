# SPDX-License-Identifier: GPL-2.0-or-later
"""The generation of the ruleset: one number that tells whether anybody changed it.

Every transaction, whoever makes it, raises the generation of its network
namespace (net/netfilter/nf_tables_api.c).  Comparing it with the one after its
own last load is how an agent notices that somebody else's came after.
"""

import socket
import struct

from agent.netlink import NETFILTER, attributes

_GET = 10 << 8 | 16  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETGEN
_ID = 1  # NFTA_GEN_ID
_REQUEST = 1  # NLM_F_REQUEST
_HEADER = struct.Struct("=IHHII")
_BODY = struct.Struct("=BBH")  # struct nfgenmsg
_SIZE = _HEADER.size + _BODY.size
_ASK = _HEADER.pack(_SIZE, _GET, _REQUEST, 1, 0) + bytes(_BODY.size)
_U32 = struct.Struct(">I")
_RECEIVE = 4096  # bytes


class Generation:
    """Reads the generation of the network namespace it was made in."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, NETFILTER)
        self._socket.bind((0, 0))

    def read(self) -> int:
        """Return the number of the last transaction."""
        self._socket.send(_ASK)
        answer = self._socket.recv(_RECEIVE)
        return int(_U32.unpack(attributes(answer, _SIZE)[_ID])[0])

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

# SPDX-License-Identifier: GPL-2.0-or-later
"""Elements of sets and maps, sent to nf_tables without libnftables.

libnftables lists every link of the namespace for each text in which an element
speaks of an interface (``ifindex_type_parse``, src/meta.c): 20 ms with 1000
clients.  These messages carry the number as it is.  It imports little, as
`agent.nft` does, and works in the network namespace it was made in.

The layout is that of ``nf_tables_newsetelem`` (net/netfilter/nf_tables_api.c):
the parts of a concatenation are padded to four bytes each; interfaces are in the
byte order of the host, all else in that of the network.
"""

import os
import socket
import struct
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from weakref import finalize

from agent.ports import FirewallError
from rules.transaction import Edit

_NETFILTER = 12  # linux/netlink.h
_BEGIN, _END = 0x10, 0x11  # NFNL_MSG_BATCH_…
_NFTABLES = 10  # NFNL_SUBSYS_NFTABLES
_ADD, _DELETE = 12, 14  # NFT_MSG_…SETELEM
_REQUEST, _ACK, _CREATE = 0x1, 0x4, 0x400  # NLM_F_…
_ERROR = 2  # NLMSG_ERROR
_SOL_NETLINK, _CAP_ACK = 270, 10
_FAMILIES = {"inet": 1, "ip": 2, "arp": 3, "netdev": 5, "ip6": 10}  # NFPROTO_…
_TABLE, _SET, _ELEMENTS = 1, 2, 3  # NFTA_SET_ELEM_LIST_…
_ELEMENT, _KEY, _DATA = 1, 1, 2  # NFTA_LIST_ELEM, NFTA_SET_ELEM_…
_VALUE, _VERDICT, _CODE, _CHAIN = 1, 2, 1, 2  # NFTA_DATA_…, NFTA_VERDICT_…
_NESTED = 0x8000
_CODES = {"drop": 0, "accept": 1, "jump": -3, "goto": -4, "return": -5}

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_FAMILY = struct.Struct(">BBH")  # struct nfgenmsg: family, version, resource
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_INDEX = struct.Struct("=I")
_SIGNED = struct.Struct(">i")
_ERRNO = struct.Struct("=i")
_RECEIVE = 1 << 16  # bytes


class Elements:
    """A socket to nf_tables."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, _NETFILTER)
        self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        self._socket.bind((0, 0))
        finalize(self, self._socket.close)

    def put(self, edits: Sequence[Edit]) -> None:
        """Take elements out and put others in, as one transaction.

        They are at most `rules.transaction.FEW`: an attribute holds 64 KiB.
        `FirewallError` if the kernel refuses; then nothing has changed.
        """
        wanted = [message for edit in edits for message in _messages(edit)]
        batch = [_message(_BEGIN, 0, 0, _FAMILY.pack(0, 0, _NFTABLES))]
        for number, (kind, flags, body) in enumerate(wanted, start=1):
            # Linux acknowledges neither end of a batch before 6.10.
            last = _ACK if number == len(wanted) else 0
            batch.append(_message(kind, flags | last, number, body))
        batch.append(_message(_END, 0, 0, _FAMILY.pack(0, 0, _NFTABLES)))
        self._socket.send(b"".join(batch))
        self._heard(len(wanted))

    def _heard(self, last: int) -> None:
        """Wait for the answer to the last message, or for the first refusal.

        What refuses the batch as a whole answers to its beginning, number 0; the
        answers to one batch come together.
        """
        refused: list[int] = []
        done = False
        while not done:
            data = self._socket.recv(_RECEIVE)
            while len(data) >= _HEADER.size + _ERRNO.size:
                length, kind, _, number, _ = _HEADER.unpack_from(data)
                if kind == _ERROR:
                    code = -_ERRNO.unpack_from(data, _HEADER.size)[0]
                    refused += [code] if code else []
                    done |= number in {0, last} or bool(code)
                data = data[length + 3 & ~3 :]
        if refused:
            self._drain()
            raise FirewallError(f"elements: {os.strerror(refused[0])}")

    def _drain(self) -> None:
        """Forget what else the kernel said about a batch that it refused."""
        while True:
            try:
                self._socket.recv(_RECEIVE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return


def _messages(edit: Edit) -> Iterator[tuple[int, int, bytes]]:
    """Yield type, flags and body of each message."""
    family, _, table = edit.key.table.partition(" ")
    place = _FAMILY.pack(_FAMILIES[family], 0, 0)
    place += _text(_TABLE, table) + _text(_SET, edit.key.name)
    for kind, flags, texts in ((_DELETE, 0, edit.gone), (_ADD, _CREATE, edit.come)):
        if texts:
            yield (
                kind,
                flags,
                place + _nested(_ELEMENTS, b"".join(map(_element, texts))),
            )


def _element(text: str) -> bytes:
    key, colon, value = text.partition(" : ")
    parts = (_packed(part) for part in key.split(" . "))
    body = _nested(_KEY, _attribute(_VALUE, b"".join(parts)))
    if colon:
        body += _nested(_DATA, _data(value))
    return _nested(_ELEMENT, body)


def _data(value: str) -> bytes:
    word, _, chain = value.partition(" ")
    if word not in _CODES:
        return _attribute(_VALUE, _packed(value))
    verdict = _attribute(_CODE, _SIGNED.pack(_CODES[word]))
    if chain:
        verdict += _text(_CHAIN, chain)
    return _nested(_VERDICT, verdict)


def _packed(word: str) -> bytes:
    """Return an interface's index, a MAC address (6 bytes, 2 unused) or an address."""
    if word.isdigit():
        return _INDEX.pack(int(word))
    if word.count(":") == 5 and len(word) == 17:  # noqa: PLR2004 - xx:xx:xx:xx:xx:xx
        return bytes.fromhex(word.replace(":", "")) + bytes(2)
    return ip_address(word).packed


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def _nested(kind: int, value: bytes) -> bytes:
    return _attribute(kind | _NESTED, value)


def _text(kind: int, text: str) -> bytes:
    return _attribute(kind, text.encode() + b"\0")


def _message(kind: int, flags: int, number: int, body: bytes) -> bytes:
    kind |= 0 if kind in {_BEGIN, _END} else _NFTABLES << 8
    length = _HEADER.size + len(body)
    return _HEADER.pack(length, kind, _REQUEST | flags, number, 0) + body

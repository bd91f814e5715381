# SPDX-License-Identifier: GPL-2.0-or-later
"""The expressions that load: meta, ct, payload, fib and exthdr.

Sources: ``nft_meta.c``, ``nft_ct.c``, ``nft_payload.c``, ``nft_fib.c`` and
``nft_exthdr.c`` in ``net/netfilter`` of Linux 6.1 to 6.18.
"""

from collections.abc import Callable

from proof.fields import (
    CT_MARK,
    IIF,
    L4,
    LATER_FRAGMENT,
    MARK,
    OIF,
    PROTO,
    SOCKET,
    UID,
    WHOLE,
    Fields,
    Load,
)
from proof.netlink import Attributes, need, number

META_MARK, CT_MARK_KEY = 3, 3
_DIRECTION = 3  # NFTA_CT_DIRECTION
_ADDRESSES = {8: 1, 9: 0, 19: 1, 20: 0, 21: 1, 22: 0}  # NFT_CT_…: is it the source?
_ONLY_IN = {19: 4, 20: 4, 21: 6, 22: 6}  # the version it is about
_PORTS = {11: "source port", 12: "destination port"}
_FIB_PRESENT = 1 << 5  # NFTA_FIB_F_PRESENT
_FIB_NAME = 2  # NFT_FIB_RESULT_OIFNAME
_EXTHDR_PRESENT = 1  # NFT_EXTHDR_F_PRESENT


class UnmodelledError(Exception):
    """An expression, or a use of one, that is not modelled."""


_META: dict[int, Callable[[Fields, int], Load]] = {
    0: lambda f, _: f.always(f.little("length", 32)),
    1: lambda f, _: f.always((*f.ethertype(), 0, 0)),
    2: lambda f, _: f.always(f.little("priority", 32)),
    META_MARK: lambda f, _: f.always(f.little(MARK, 32)),
    4: lambda f, _: f.always(f.little(IIF, 32)),
    5: lambda f, _: f.always(f.little(OIF, 32)),
    6: lambda f, _: f.name(IIF),
    7: lambda f, _: f.name(OIF),
    8: lambda f, _: _of_link(f, IIF, "type"),
    9: lambda f, _: _of_link(f, OIF, "type"),
    10: lambda f, _: f.only(f.little(UID, 32), SOCKET, 1),
    11: lambda f, _: f.only(f.little("gid", 32), SOCKET, 1),
    15: lambda f, family: f.always((f.protocol_of(family), 0, 0, 0)),
    16: lambda f, _: f.only((*f.big(PROTO, 8), 0, 0, 0), L4, WHOLE, LATER_FRAGMENT),
    19: lambda f, _: f.always(f.word("packet type", 8)),
    21: lambda f, _: _of_link(f, IIF, "group"),
    22: lambda f, _: _of_link(f, OIF, "group"),
}


_CT: dict[int, Callable[[Fields], Load]] = {
    0: Fields.state,
    1: Fields.direction,
    2: lambda f: f.tracked(f.word("ct status", 16)),
    CT_MARK_KEY: lambda f: f.tracked(f.little(CT_MARK, 32)),
    7: lambda f: f.tracked((f.protocol_of(0), 0, 0, 0)),
    10: lambda f: f.tracked(f.word("ct protocol", 8)),
}


def _of_link(fields: Fields, name: str, what: str) -> Load:
    table = {
        link.index: (
            link.hardware.to_bytes(2, "little") + bytes(2)
            if what == "type"
            else link.group.to_bytes(4, "little")
        )
        for link in fields.links
    }
    return fields.pictured(f"{name} {what}", name, table)


def meta(fields: Fields, family: int, values: Attributes) -> Load:
    """Return what ``meta load`` gives in a chain of this family."""
    key = number(need(values, 2, "meta"), "meta")
    if key not in _META:
        raise UnmodelledError(f"meta {key}")
    return _META[key](fields, family)


def ct(fields: Fields, values: Attributes) -> Load:
    """Return what ``ct load`` gives."""
    key = number(need(values, 2, "ct"), "ct")
    reply = number(values.get(_DIRECTION), "ct")
    if _ONLY_IN.get(key, fields.version) != fields.version:
        return Load((), fields.space.false)
    if key in _ADDRESSES:
        return fields.tracked(fields.original(reply, _ADDRESSES[key]))
    if key in _PORTS:
        way = "reply" if reply else "original"
        value = fields.big(f"ct {way} {_PORTS[key]}", 16)
        return fields.tracked((*value, 0, 0))
    if key not in _CT:
        raise UnmodelledError(f"ct {key}")
    return _CT[key](fields)


def payload(fields: Fields, values: Attributes) -> Load:
    """Return what ``payload load`` gives."""
    base, offset, length = (
        number(need(values, kind, "payload"), "payload") for kind in (2, 3, 4)
    )
    match base:
        case 0:
            return fields.frame(offset, length)
        case 1:
            return fields.network(offset, length)
        case 2:
            return fields.transport(offset, length)
        case _:
            raise UnmodelledError(f"payload of base {base}")


def fib(fields: Fields, values: Attributes) -> Load:
    """Return what the routing tables say: an input, the same for equal questions."""
    result, flags = (number(need(values, kind, "fib"), "fib") for kind in (2, 3))
    name = f"fib {result} {flags}"
    if flags & _FIB_PRESENT:
        return fields.always((*fields.big(f"{name} present", 8), 0, 0, 0))
    if result == _FIB_NAME:
        raise UnmodelledError("fib interface name")
    return fields.always(fields.little(name, 32))


def exthdr(fields: Fields, values: Attributes) -> Load:
    """Return what an extension header or option has: an input."""
    kind, offset, length, flags, what = (
        number(values.get(n), "exthdr") for n in (2, 3, 4, 5, 6)
    )
    name = f"header {what} {kind}"
    if flags & _EXTHDR_PRESENT:
        fields.space.field(f"{name} is there", 1)
        table = {0: bytes(4), 1: bytes([1, 0, 0, 0])}
        return fields.pictured(f"{name} present", f"{name} is there", table)
    there = fields.flag(f"{name} is there")
    value = fields.big(f"{name} bytes {offset} to {offset + length}", length * 8)
    return Load(value, there)

# SPDX-License-Identifier: GPL-2.0-or-later
"""nf_tables as the kernel has it (``linux/netfilter/nf_tables.h``)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from proof.netlink import attributes, need, number, text

_VERDICT_CHAIN = 2  # NFTA_VERDICT_CHAIN
_LIMIT_FLAGS, _OVER = 5, 1  # NFTA_LIMIT_FLAGS, NFT_LIMIT_F_INV
DORMANT, OWNED = 0x1, 0x2  # NFT_TABLE_F_…
INTERVAL, TIMEOUT, EVALUATED = 0x4, 0x10, 0x20  # NFT_SET_…
INTERVAL_END, CATCH_ALL = 0x1, 0x2  # NFT_SET_ELEM_…


class Family(IntEnum):
    """Address families of tables (NFPROTO_…)."""

    INET = 1
    IP = 2
    ARP = 3
    NETDEV = 5
    BRIDGE = 7
    IP6 = 10


class Place(NamedTuple):
    """Where an object lives, and its name."""

    family: int
    table: str
    name: str

    def __str__(self) -> str:
        known = {item.value: item.name.lower() for item in Family}
        return f"{known.get(self.family, self.family)} {self.table} {self.name}"


class Code(IntEnum):
    """Verdicts (NF_…, NFT_…)."""

    DROP = 0
    ACCEPT = 1
    STOLEN = 2
    QUEUE = 3
    REPEAT = 4
    CONTINUE = -1
    BREAK = -2
    JUMP = -3
    GOTO = -4
    RETURN = -5


@dataclass(frozen=True, slots=True)
class Verdict:
    """A verdict's code, one of `Code` or not, and the chain of a jump or goto."""

    code: int
    chain: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Expression:
    """One instruction; equal ones of a snapshot are one object.

    ``values`` are its attributes (NFTA_…) as the kernel wrote them.
    """

    name: str
    values: Mapping[int, bytes]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule; the handle is what ``nft -a`` shows."""

    handle: int
    expressions: tuple[Expression, ...]
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class Hook:
    """Where a base chain is called; ``kind`` is filter, nat or route."""

    number: int
    priority: int
    kind: str
    policy: int = Code.ACCEPT
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain and its rules; a regular one has no hook."""

    place: Place
    hook: Hook | None
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class Element:
    """An element of a set or map.

    ``end`` is the last key of a range of a concatenation.  ``sure`` is False
    when it may vanish (a timeout) or has conditions of its own.  ``limit``: whether
    its condition is that a rate is exceeded, None if it is no limit.
    """

    key: bytes
    end: bytes | None = None
    value: bytes | Verdict | None = None
    flags: int = 0
    sure: bool = True
    limit: bool | None = None


@dataclass(frozen=True, slots=True)
class Set:
    """A set or map.

    ``lengths`` are those of the components of a concatenation, in bytes; each
    starts at a multiple of four.  Empty: not known.
    """

    place: Place
    flags: int
    key_length: int
    lengths: tuple[int, ...] = ()
    elements: tuple[Element, ...] = ()


@dataclass(frozen=True, slots=True)
class Bytecode:
    """All of nf_tables in one network namespace.

    ``tables`` have their flags; ``flowtables`` only their names.
    """

    generation: int
    tables: Mapping[Place, int] = field(default_factory=dict)
    chains: Mapping[Place, Chain] = field(default_factory=dict)
    sets: Mapping[Place, Set] = field(default_factory=dict)
    flowtables: tuple[Place, ...] = ()


def data(raw: bytes, what: str) -> bytes | Verdict:
    """Return a value or a verdict (NFTA_DATA_…)."""
    found = attributes(raw)
    if 1 in found:
        return found[1]
    parts = attributes(need(found, 2, what))
    code = number(need(parts, 1, what), what)
    chain = text(parts[_VERDICT_CHAIN]) if _VERDICT_CHAIN in parts else None
    return Verdict(code - (1 << 32) if code >> 31 else code, chain)


def exceeded(values: Mapping[int, bytes]) -> bool:
    """Return whether a limit (NFTA_LIMIT_…) holds when its rate is exceeded."""
    return bool(number(values.get(_LIMIT_FLAGS), "limit") & _OVER)


def limited(raw: bytes) -> bool | None:
    """Return `exceeded` of an expression (NFTA_EXPR_…), None if it is no limit."""
    found = attributes(raw)
    is_limit = text(found.get(1, b"")) == "limit"
    return exceeded(attributes(found.get(2, b""))) if is_limit else None

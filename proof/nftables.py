# SPDX-License-Identifier: GPL-2.0-or-later
"""The bytecode of nf_tables, read from the kernel over netlink.

Never ``nft``: its listing is what it believes to have loaded, and has been wrong.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from proof import integrity
from proof.bytecode import (
    Bytecode,
    Chain,
    Code,
    Element,
    Expression,
    Hook,
    Place,
    Rule,
    Set,
    data,
    limited,
)
from proof.netlink import (
    Attributes,
    Kernel,
    Request,
    SnapshotError,
    attribute,
    attributes,
    listed,
    need,
    number,
    text,
)

_SUBSYSTEM = 10 << 8  # NFNL_SUBSYS_NFTABLES
_TABLES, _CHAINS, _RULES, _SETS, _ELEMENTS = 1, 4, 7, 10, 13  # NFT_MSG_GET…
_GENERATION, _FLOWTABLES = 16, 23
_GENMSG = 4  # bytes of struct nfgenmsg
_WORD = 4  # bytes of a register
_CHAIN_HOOK = 4  # NFTA_CHAIN_HOOK
_HOOK_DEV, _HOOK_DEVS = 3, 4  # NFTA_HOOK_…
_ELEM_DATA, _ELEM_EXPR, _ELEM_KEY_END = 2, 7, 10  # NFTA_SET_ELEM_…


def read(kernel: Kernel) -> Bytecode:
    """Return everything; `SnapshotError` if it changed meanwhile, or does not fit."""
    before = _generation(kernel)
    reader = _Reader(kernel)
    found = Bytecode(
        generation=before,
        tables=dict(reader.tables()),
        chains=reader.chains(),
        sets={found.place: found for found in reader.sets()},
        flowtables=tuple(place for place, _ in reader.named(_FLOWTABLES, 1, 2)),
    )
    if _generation(kernel) != before:
        raise SnapshotError("nf_tables: it changed while it was read")
    integrity.check(found)
    return found


def _request(what: str, kind: int, family: int = 0, body: bytes = b"") -> Request:
    header = struct.pack("=BBH", family, 0, 0)
    return Request(f"nf_tables {what}", _SUBSYSTEM | kind, header + body)


def _generation(kernel: Kernel) -> int:
    message = kernel.ask(_request("generation", _GENERATION))
    return number(need(attributes(message.body, _GENMSG), 1, "generation"), "it")


_WORDS = {
    _TABLES: "tables",
    _CHAINS: "chains",
    _RULES: "rules",
    _SETS: "sets",
    _FLOWTABLES: "flowtables",
}


@dataclass(slots=True)
class _Reader:
    kernel: Kernel
    known: dict[bytes, Expression] = field(default_factory=dict)

    def named(
        self, kind: int, table: int, name: int
    ) -> Iterator[tuple[Place, Attributes]]:
        met: set[Place] = set()
        for message in self.kernel.dump(_request(_WORDS[kind], kind)):
            if message.kind != _SUBSYSTEM | kind - 1 or len(message.body) < _GENMSG:
                raise SnapshotError(f"nf_tables {_WORDS[kind]}: not one: {message}")
            found = attributes(message.body, _GENMSG)
            words = [text(need(found, n, _WORDS[kind])) for n in (table, name)]
            place = Place(message.body[0], *words)
            if place in met and kind != _RULES:
                raise SnapshotError(f"nf_tables {_WORDS[kind]}: {place} twice")
            met.add(place)
            yield place, found

    def tables(self) -> Iterator[tuple[Place, int]]:
        for place, found in self.named(_TABLES, 1, 1):
            yield place, number(found.get(2), f"flags of {place}")

    def chains(self) -> dict[Place, Chain]:
        chains = {
            place: Chain(place, _hook(place, found))
            for place, found in self.named(_CHAINS, 1, 3)
        }
        rules: dict[Place, list[Rule]] = {place: [] for place in chains}
        for place, found in self.named(_RULES, 1, 2):
            if place not in rules:
                raise SnapshotError(f"a rule in chain {place}, which does not exist")
            rules[place].append(self.rule(place, found))
        return {
            place: replace(chain, rules=tuple(rules[place]))
            for place, chain in chains.items()
        }

    def rule(self, place: Place, found: Attributes) -> Rule:
        handle = number(need(found, 3, f"rule of {place}"), f"handle in {place}")
        return Rule(
            handle,
            tuple(
                self.expression(raw)
                for _, raw in listed(need(found, 4, f"rule of {place}"))
            ),
            _comment(found.get(7, b"")),
        )

    def expression(self, raw: bytes) -> Expression:
        found = self.known.get(raw)
        if found is None:
            parts = attributes(raw)
            name = text(need(parts, 1, "an expression"))
            found = Expression(name, attributes(parts.get(2, b"")))
            self.known[raw] = found
        return found

    def sets(self) -> Iterator[Set]:
        for place, found in self.named(_SETS, 1, 2):
            what = f"set {place}"
            length = number(need(found, 5, what), what)
            components = attributes(found.get(9, b"")).get(2, b"")
            elements = tuple(self.elements(place))
            for element in elements:
                _fits(what, length, element)
            yield Set(
                place,
                flags=number(found.get(3), what),
                key_length=length,
                lengths=tuple(
                    number(need(attributes(part), 1, what), what)
                    for _, part in listed(components)
                ),
                elements=elements,
            )

    def elements(self, place: Place) -> Iterator[Element]:
        what = f"elements of {place}"
        body = b"".join(
            attribute(kind, word.encode() + b"\0")
            for kind, word in ((1, place.table), (2, place.name))
        )
        for message in self.kernel.dump(_request(what, _ELEMENTS, place.family, body)):
            found = attributes(message.body, _GENMSG)
            for _, raw in listed(found.get(3, b"")):
                yield _element(attributes(raw), what)


def _hook(place: Place, found: Attributes) -> Hook | None:
    if _CHAIN_HOOK not in found:
        return None
    what = f"hook of {place}"
    parts = attributes(found[_CHAIN_HOOK])
    priority = number(need(parts, 2, what), what)
    one = [parts[_HOOK_DEV]] if _HOOK_DEV in parts else []
    devices = one or [value for _, value in listed(parts.get(_HOOK_DEVS, b""))]
    return Hook(
        number=number(need(parts, 1, what), what),
        priority=priority - (1 << 32) if priority >> 31 else priority,
        kind=text(need(found, 7, what)),
        policy=number(found.get(5), what, Code.ACCEPT),
        devices=tuple(text(value) for value in devices),
    )


def _comment(userdata: bytes) -> str | None:
    """Return the comment among what nft keeps with a rule: type, length, value."""
    while len(userdata) > 1:
        kind, length = userdata[:2]
        if kind == 0:
            return text(userdata[2 : 2 + length])
        userdata = userdata[2 + length :]
    return None


def _element(found: Attributes, what: str) -> Element:
    key = attributes(found.get(1, b"")).get(1, b"")
    end = attributes(found[_ELEM_KEY_END]).get(1) if _ELEM_KEY_END in found else None
    uncertain = {4, 5, 7, 9, 11} & found.keys()  # timeouts, expressions, objects
    return Element(
        key=key,
        end=end,
        value=data(found[_ELEM_DATA], what) if _ELEM_DATA in found else None,
        flags=number(found.get(3), what),
        sure=not uncertain,
        limit=limited(found.get(_ELEM_EXPR, b"")),
    )


def _fits(what: str, length: int, element: Element) -> None:
    keys = [key for key in (element.key, element.end) if key]
    if any(-(-len(key) // _WORD) != -(-length // _WORD) for key in keys):
        raise SnapshotError(f"{what}: a key of {len(element.key)} bytes, not {length}")

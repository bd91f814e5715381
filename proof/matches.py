# SPDX-License-Identifier: GPL-2.0-or-later
"""The expressions that look: comparisons, arithmetic, lookups.

Sources: ``nft_cmp.c``, ``nft_range.c``, ``nft_bitwise.c``, ``nft_byteorder.c``,
``nft_lookup.c`` in ``net/netfilter``.
"""

from proof.bytecode import Code, Verdict, data
from proof.diagram import Leaf, Node
from proof.explore import leaves
from proof.loads import UnmodelledError
from proof.netlink import Attributes, need, number, text
from proof.outcome import Step
from proof.relabel import relabel, where
from proof.rule import WORD, RuleRun
from proof.values import Atom, FieldByte, ImageByte, Opaque, Value

_EQUAL, _NOT_EQUAL, _LESS, _AT_MOST, _MORE, _AT_LEAST = range(6)  # NFT_CMP_…
_LOOKUP_DREG = 3  # NFTA_LOOKUP_DREG
_INVERTED = 1  # NFT_LOOKUP_F_INV


def _constant(values: Attributes, kind: int) -> bytes:
    match data(need(values, kind, "constant"), "constant"):
        case bytes() as value:
            return value
        case Verdict():
            raise UnmodelledError("a verdict where a value is expected")


def _flip(this: RuleRun, found: Node, *, inverted: bool) -> Node:
    return this.space.minus(this.space.true, found) if inverted else found


def cmp(this: RuleRun, values: Attributes) -> None:
    """Compare a register to a constant."""
    constant = _constant(values, 3)
    operation = number(need(values, 2, "cmp"), "cmp")
    if not _EQUAL <= operation <= _AT_LEAST:
        raise UnmodelledError(f"cmp {operation}")
    value = this.read(values, 1, len(constant))
    compare = this.tools.comparisons
    found = (
        compare.below(value, constant)
        if operation in {_LESS, _AT_LEAST}
        else compare.equal(value, constant)
    )
    if operation in {_AT_MOST, _MORE}:
        found = this.space.either(compare.below(value, constant), found)
    inverted = operation in {_NOT_EQUAL, _MORE, _AT_LEAST}
    this.keep(_flip(this, found, inverted=inverted))


def range_(this: RuleRun, values: Attributes) -> None:
    """Compare a register to a range."""
    first, last = _constant(values, 3), _constant(values, 4)
    value = this.read(values, 1, len(first))
    found = this.tools.comparisons.within(value, first, last)
    inverted = number(values.get(2), "range") == _NOT_EQUAL
    this.keep(_flip(this, found, inverted=inverted))


def bitwise(this: RuleRun, values: Attributes) -> None:
    """Mask and flip bits; other operations give bits that nothing is known of."""
    length = number(need(values, 3, "bitwise"), "bitwise")
    value = this.read(values, 1, length)
    if number(values.get(6), "bitwise"):
        unknown: Value = (Opaque("a shift"),) * length
        this.write(values, 2, unknown)
        return
    mask, flip = _constant(values, 4), _constant(values, 5)
    atoms = [
        _masked(this, atom, m, x) for atom, m, x in zip(value, mask, flip, strict=True)
    ]
    this.write(values, 2, tuple(atoms))


def _masked(this: RuleRun, atom: Atom, mask: int, flip: int) -> Atom:
    if mask == 0:
        return flip
    match atom:
        case int():
            return atom & mask ^ flip
        case FieldByte(level, shift, before, flipped):
            left = before & mask
            new = flipped & mask ^ flip
            return FieldByte(level, shift, left, new) if left else new
        case ImageByte(image, at):
            return ImageByte(_masked_image(this, image, at, mask, flip), 0)
        case Opaque():
            return atom


def _masked_image(this: RuleRun, image: Node, at: int, mask: int, flip: int) -> Node:
    def change(value: object) -> bytes | None:
        return bytes([value[at] & mask ^ flip]) if isinstance(value, bytes) else None

    return relabel(this.space, image, change)


def byteorder(this: RuleRun, values: Attributes) -> None:
    """Turn the bytes of each number around."""
    length, size = (number(need(values, n, "byteorder"), "byteorder") for n in (4, 5))
    value = this.read(values, 1, length)
    groups = [value[start : start + size] for start in range(0, length, size or 1)]
    this.write(values, 2, tuple(atom for group in groups for atom in group[::-1]))


def lookup(this: RuleRun, values: Attributes) -> None:
    """Look a register up in a set, a map or a verdict map."""
    place = this.place._replace(name=text(need(values, 1, "lookup")))
    what = this.tools.sets(place)
    found = this.tools.lookups.find(what, this.read(values, 2, what.length))
    if _LOOKUP_DREG not in values:
        there = _there(this, found)
        inverted = bool(number(values.get(5), "lookup") & _INVERTED)
        this.keep(_flip(this, there, inverted=inverted))
    elif number(values[_LOOKUP_DREG], "lookup") == 0:
        _by_verdict(this, found)
    else:
        this.keep(_there(this, found))
        this.write(values, _LOOKUP_DREG, _image(found))


def _there(this: RuleRun, found: Node) -> Node:
    return relabel(this.space, found, lambda value: value is not None)


def _image(found: Node) -> Value:
    values = leaves(found)
    sizes = {len(value) for value in values if isinstance(value, bytes)}
    unknown = [value for value in values if isinstance(value, Opaque)]
    if unknown:
        return (unknown[0],) * (4 * WORD)
    if isinstance(found, Leaf) and isinstance(found.value, bytes):
        return tuple(found.value)
    return tuple(ImageByte(found, at) for at in range(max(sizes, default=0)))


def _by_verdict(this: RuleRun, found: Node) -> None:
    def step(value: object) -> Step | None:
        return this.step_of(value) if isinstance(value, Verdict) else None

    known = this.space.only(this.holds, relabel(this.space, found, step))
    this.result = this.space.over(this.result, known)
    others = {v for v in leaves(found) if v is not None and step(v) is None}
    on = {v for v in others if isinstance(v, Verdict) and v.code == Code.CONTINUE}
    for value in others - on:
        this.either_way(f"verdict {value}", where(this.space, found, {value}))
    this.keep(where(this.space, found, on))

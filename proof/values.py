# SPDX-License-Identifier: GPL-2.0-or-later
"""What is in a register, byte by byte.

A byte is known, or bits of a field of the packet, or depends on the packet in
another way, or cannot be known.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

from proof.diagram import Node

_BYTE = 8  # bits


class FieldByte(NamedTuple):
    """Bits ``shift`` to ``shift + 7`` of a field, ``& mask``, ``^ flip``."""

    level: int
    shift: int
    mask: int = 0xFF
    flip: int = 0


class ImageByte(NamedTuple):
    """Byte ``at`` of the bytes a diagram gives; where it gives none, nothing."""

    image: Node
    at: int


class Opaque(NamedTuple):
    """A byte that nothing is known of."""

    reason: str


Atom = int | FieldByte | ImageByte | Opaque
Value = tuple[Atom, ...]


class Constant(NamedTuple):
    """Known bytes."""

    data: bytes


class Number(NamedTuple):
    """Neighbouring bytes of a field; mask and flip in the order of its bits."""

    level: int
    shift: int
    size: int
    big: bool
    mask: int
    flip: int

    def read(self, data: bytes) -> int:
        """Return the constant it is compared to, as bits of the field."""
        return int.from_bytes(data, "big" if self.big else "little")


class Picture(NamedTuple):
    """Neighbouring bytes of an image."""

    image: Node
    first: int
    size: int


class Hidden(NamedTuple):
    """Bytes that nothing is known of."""

    reason: str
    size: int


Part = Constant | Number | Picture | Hidden


def size_of(part: Part) -> int:
    """Return its number of bytes."""
    match part:
        case Constant(data):
            return len(data)
        case Number() | Picture() | Hidden():
            return part.size


@lru_cache(maxsize=2**14)
def split(value: Value) -> tuple[Part, ...]:
    """Return the parts that a value is made of."""
    parts: list[Part] = []
    for kind, group in groupby(value, key=_source):
        atoms = list(group)
        match atoms[0]:
            case int():
                parts.append(Constant(bytes(a for a in atoms if isinstance(a, int))))
            case FieldByte():
                parts += _numbers([a for a in atoms if isinstance(a, FieldByte)])
            case ImageByte():
                parts += _pictures([a for a in atoms if isinstance(a, ImageByte)])
            case Opaque(reason):
                parts.append(Hidden(reason, len(atoms)))
        del kind
    return tuple(parts)


def _source(atom: Atom) -> object:
    match atom:
        case FieldByte(level):
            return level
        case ImageByte(image):
            return image
        case int() | Opaque():
            return type(atom)


def _numbers(atoms: list[FieldByte]) -> Iterator[Number]:
    while atoms:
        step = atoms[1].shift - atoms[0].shift if len(atoms) > 1 else -_BYTE
        length = 1
        if step in {-_BYTE, _BYTE}:
            while (
                length < len(atoms)
                and atoms[length].shift == atoms[length - 1].shift + step
            ):
                length += 1
        run = atoms[:length] if step != _BYTE else atoms[length - 1 :: -1]
        mask = int.from_bytes(bytes(a.mask for a in run), "big")
        flip = int.from_bytes(bytes(a.flip for a in run), "big")
        big = step != _BYTE or length == 1
        yield Number(run[0].level, run[-1].shift, length, big, mask, flip)
        atoms = atoms[length:]


def _pictures(atoms: list[ImageByte]) -> Iterator[Picture]:
    while atoms:
        length = 1
        while length < len(atoms) and atoms[length].at == atoms[0].at + length:
            length += 1
        yield Picture(atoms[0].image, atoms[0].at, length)
        atoms = atoms[length:]

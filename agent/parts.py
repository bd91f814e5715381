# SPDX-License-Identifier: GPL-2.0-or-later
"""A ruleset in parts, of which a change touches few."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from itertools import chain, islice
from operator import is_

from rules.model import Address
from rules.objects import Chain, Key, Map, Object, Ruleset, Set

Parts = Mapping[Address | None, Ruleset]
"""The program of each client's address, and under None the frame around them.

A part that is the same object is the same; no two have an object in common.
"""


def changed(old: Parts, new: Parts) -> tuple[Ruleset, Ruleset]:
    """Return what is to go of ``old``, and what is to come of ``new``.

    Of sets and maps declared alike that is their elements that are not in both.
    """
    if len(old) == len(new) and all(map(is_, old, new)):
        pairs = zip(new, old.values(), new.values(), strict=True)
        more = less = [part for part, was, content in pairs if was is not content]
    else:  # the hash of an address is slow
        more = [part for part, content in new.items() if old.get(part) is not content]
        less = [part for part in more if part in old]
        if len(new) - len(more) + len(less) < len(old):
            less += old.keys() - new.keys()
    gone, come = joined(map(old.__getitem__, less)), joined(map(new.__getitem__, more))
    for key in gone.keys() & come.keys():
        if gone[key] is come[key]:
            del gone[key], come[key]
        else:
            gone[key], come[key] = _apart(gone[key], come[key])
    return gone, come


def _apart(old: Object, new: Object) -> tuple[Object, Object]:
    match old, new:
        case Set(before, had), Set(after, has) if before == after:
            return Set(before, had - has), Set(after, has - had)
        case Map(before, had), Map(after, has) if before == after:
            gone = {key: value for key, value in had.items() if has.get(key) != value}
            come = {key: value for key, value in has.items() if had.get(key) != value}
            return Map(before, gone), Map(after, come)
    return old, new


def joined(parts: Iterable[Ruleset]) -> dict[Key, Object]:
    """Return the objects of all parts."""
    found: dict[Key, Object] = {}
    for part in parts:
        found.update(part)
    return found


def batches(parts: Parts, most: int) -> Iterator[Parts]:
    """Yield the parts of the clients, ``most`` at a time."""
    waiting = (address for address in parts if address)
    while batch := tuple(islice(waiting, most)):
        yield {address: parts[address] for address in batch}


def growth(old: Ruleset, new: Ruleset) -> int:
    """Return what a sum of a hash of each object and element changes by.

    Only what differs is hashed.  From nothing it is the sum itself.
    """
    found = 0
    for key in old.keys() | new.keys():
        (head, had), (title, has) = _items(old.get(key)), _items(new.get(key))
        found += sum(_hash(key, item) for item in chain(title - head, has - had))
        found -= sum(_hash(key, item) for item in chain(head - title, had - has))
    return found


def _items(content: Object | None) -> tuple[AbstractSet[object], AbstractSet[object]]:
    """Return what an object consists of: its head, and what there may be many of."""
    nothing: AbstractSet[object] = frozenset()
    match content:
        case None:
            return nothing, nothing
        case Chain(rules):
            return frozenset({rules}), nothing
        case Set(declaration, elements):
            return frozenset({(declaration,)}), elements
        case Map(declaration, pairs):
            return frozenset({(declaration,)}), pairs.items()


def _hash(key: Key, item: object) -> int:
    data = f"{key.table} {key.name}\n{item}".encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest())

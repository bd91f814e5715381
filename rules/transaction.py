# SPDX-License-Identifier: GPL-2.0-or-later
"""The difference of two rulesets, as one transaction for nft."""

from collections.abc import Iterable, Iterator
from itertools import islice

from rules.objects import Chain, Key, Map, Object, Ruleset, Set

_CHUNK = 4000
"""Elements in one command."""


def difference(old: Ruleset | None, new: Ruleset) -> str:
    """Return the nft script that makes ``new`` out of ``old``; "" if they are equal.

    Old None: all that is known of the kernel is that the tables exist, and that
    sets of these names have these declarations.  What is there besides stays.

    Raises `ValueError` for an object that would become another kind or get
    another declaration: the kernel deletes nothing that is in use.
    """
    before: Ruleset = {} if old is None else old
    changed = [key for key in new if before.get(key) != new[key]]
    added = [key for key in changed if key not in before]
    lines = [f"add {_called(key, new[key])}{_declaration(new[key])}" for key in added]
    if old is None:
        lines += (f"flush {_called(key, new[key])}" for key in added)
    for key in changed:
        if key in before and not _alike(before[key], new[key]):
            raise ValueError(f"{key.table} {key.name}: declared otherwise than before")
        lines += _elements(key, before.get(key), new[key])
    for key in changed:
        lines += _rules(key, before.get(key), new[key])
    lines += _removal({key: before[key] for key in before if key not in new})
    return "".join(f"{line}\n" for line in lines)


def _called(key: Key, content: Object) -> str:
    return f"{type(content).__name__.lower()} {key.table} {key.name}"


def _declaration(content: Object) -> str:
    match content:
        case Chain():
            return ""
        case Set(declaration, _) | Map(declaration, _):
            return f" {{ {declaration} }}"


def _alike(old: Object, new: Object) -> bool:
    return type(old) is type(new) and _declaration(old) == _declaration(new)


def _rules(key: Key, old: Object | None, new: Object) -> Iterator[str]:
    match new:
        case Chain(rules):
            if old is not None:
                yield f"flush {_called(key, new)}"
            yield from (f"add rule {key.table} {key.name} {rule}" for rule in rules)
        case Set() | Map():
            pass


def _elements(key: Key, old: Object | None, new: Object) -> Iterator[str]:
    """Yield commands for the elements that are gone, then for those that are new.

    An element with another value is both.
    """
    gone: list[str] = []
    more: list[str] = []
    match new:
        case Set(_, elements):
            had = old.elements if isinstance(old, Set) else frozenset()
            gone, more = sorted(had - elements), sorted(elements - had)
        case Map(_, pairs):
            before = old.elements if isinstance(old, Map) else {}
            gone = [key for key, _ in sorted(before.items() - pairs.items())]
            new_pairs = sorted(pairs.items() - before.items())
            more = [f"{key} : {value}" for key, value in new_pairs]
        case Chain():
            pass
    for verb, texts in (("delete", gone), ("add", more)):
        for chunk in _chunks(texts):
            yield f"{verb} element {key.table} {key.name} {{ {chunk} }}"


def _chunks(texts: Iterable[str]) -> Iterator[str]:
    remaining = iter(texts)
    while chunk := ", ".join(islice(remaining, _CHUNK)):
        yield chunk


def _removal(gone: Ruleset) -> Iterator[str]:
    """Yield commands in an order that deletes nothing while it is referred to."""
    chains_last = sorted(gone, key=lambda key: isinstance(gone[key], Chain))
    names = [_called(key, gone[key]) for key in chains_last]
    yield from (f"flush {name}" for name in names)
    yield from (f"delete {name}" for name in names)

# SPDX-License-Identifier: GPL-2.0-or-later
"""The difference of two rulesets, as one transaction for nft.

Where it only adds and removes objects and changes elements of plain sets and
maps, the elements alone decide what passes: a chain that nothing leads to is as
good as none.  Then the elements can be a transaction of their own, between two
that have no effect (`steps`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from rules.objects import Chain, Key, Map, Object, Ruleset, Set

_CHUNK = 4000
"""Elements in one command."""
FEW = 500
"""Elements in a difference that is made in steps."""
PLAIN = frozenset(
    {"iface_index", "iif", "oif", "ipv4_addr", "ip saddr", "ip daddr", "ip6 saddr"}
    | {"ipv6_addr", "ip6 daddr", "ether saddr", "arp saddr ether", "arp saddr ip"}
)
"""What the keys of a plain set or map are made of."""


@dataclass(frozen=True, slots=True)
class Edit:
    """Elements of one set or map that go and that come, as nft text.

    Of a map what comes is ``key : value``.
    """

    key: Key
    gone: tuple[str, ...]
    come: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Steps:
    """A difference in three transactions, of which ``edits`` alone has an effect.

    ``undo`` takes back ``added``.
    """

    added: str
    edits: tuple[Edit, ...]
    removed: str
    undo: str


def steps(old: Ruleset, new: Ruleset) -> Steps | None:
    """Return the difference in steps, None where it must be one transaction."""
    edits = []
    for key in new.keys() & old.keys():
        if old[key] == new[key]:
            continue
        if not (_alike(old[key], new[key]) and _is_plain(new[key])):
            return None
        edits.append(Edit(key, *map(tuple, _differ(old[key], new[key]))))
    if not 0 < sum(len(edit.gone) + len(edit.come) for edit in edits) <= FEW:
        return None
    more = {key: new[key] for key in new if key not in old}
    less = {key: old[key] for key in old if key not in new}
    return Steps(
        difference({}, more),
        tuple(sorted(edits, key=lambda edit: (edit.key.table, edit.key.name))),
        difference(less, {}),
        difference(more, {}),
    )


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
            # For a block libnftables does not ask which chains there are, 2 ms where
            # there are 1000; but then it does not know which sets there are either.
            if rules and not any("@" in rule for rule in rules):
                yield f"add {_called(key, new)} {{ {'; '.join(rules)}; }}"
            else:
                yield from (f"add rule {key.table} {key.name} {rule}" for rule in rules)
        case Set() | Map():
            pass


def _elements(key: Key, old: Object | None, new: Object) -> Iterator[str]:
    """Yield commands for the elements that are gone, then for those that are new.

    An element with another value is both.
    """
    gone, more = _differ(old, new)
    for verb, texts in (("delete", gone), ("add", more)):
        for chunk in _chunks(texts):
            yield f"{verb} element {key.table} {key.name} {{ {chunk} }}"


def _differ(old: Object | None, new: Object) -> tuple[list[str], list[str]]:
    match new:
        case Set(_, elements):
            had = old.elements if isinstance(old, Set) else frozenset()
            return sorted(had - elements), sorted(elements - had)
        case Map(_, pairs):
            before = old.elements if isinstance(old, Map) else {}
            gone = [key for key, _ in sorted(before.items() - pairs.items())]
            new_pairs = sorted(pairs.items() - before.items())
            return gone, [f"{key} : {value}" for key, value in new_pairs]
        case Chain():
            return [], []


def _is_plain(content: Object) -> bool:
    """Whether every element is one value, of parts in `PLAIN`, and its verdict."""
    match content:
        case Set(declaration, _) | Map(declaration, _):
            kind, _, words = declaration.partition(" ")
            key, _, value = words.removesuffix(";").partition(" : ")
            parts = key.split(" . ")
            return (
                kind in {"type", "typeof"}
                and PLAIN.issuperset(parts)
                and (value in {"", "verdict"})
            )
        case Chain():
            return False


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

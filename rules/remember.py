# SPDX-License-Identifier: GPL-2.0-or-later
"""Remember what was computed: most of a world is what it was a moment ago."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Concatenate, Generic, TypeVar

A = TypeVar("A")
R = TypeVar("R")

LIMIT = 32_768


class Remembered(Generic[A, R]):
    """A function of an immutable object, and of a few words besides.

    It knows the object by its identity, which costs nothing; a hash looks at all
    that it holds.  It keeps the objects alive, or an identity could be another's
    later; when there are more than `LIMIT` it forgets them all.
    """

    def __init__(self, function: Callable[Concatenate[A, ...], R]) -> None:
        self._function = function
        self._known: dict[tuple[Hashable, ...], tuple[A, R]] = {}

    def __call__(self, argument: A, *words: Hashable) -> R:
        """Return ``function(argument, *words)``."""
        key = id(argument), *words
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= LIMIT:
                self._known.clear()
            found = self._known[key] = argument, self._function(argument, *words)
        return found[1]


class LastTime(Generic[A, R]):
    """A function of each of many, of which it remembers those of the last call.

    Most of them are the same objects in the same order, so only what stands
    between the first and the last that is another is looked at.
    """

    def __init__(self, function: Callable[[A, int], R]) -> None:
        self._function = function
        self._asked: list[tuple[A, int]] = []
        self._found: tuple[R, ...] = ()

    def __call__(self, arguments: Iterable[tuple[A, int]]) -> tuple[R, ...]:
        """Return ``function`` of each argument; they differ from each other.

        It is the same tuple for as long as the arguments are the same.
        """
        asked, before, found = list(arguments), self._asked, self._found
        if asked != before:
            shorter = min(len(asked), len(before))
            head = _alike(asked, before)
            tail = min(_alike(asked[::-1], before[::-1]), shorter - head)
            start, end = len(before) - tail, len(asked) - tail
            known = dict(zip(before[head:start], found[head:start], strict=True))
            middle = (
                known[pair] if pair in known else self._function(*pair)
                for pair in asked[head:end]
            )
            self._asked = asked
            self._found = (*found[:head], *middle, *found[start:])
        return self._found


def _alike(one: Sequence[object], other: Sequence[object]) -> int:
    """Return how many are the same at the start of both."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))

# SPDX-License-Identifier: GPL-2.0-or-later
"""Remember what was computed: most of a world is what it was a moment ago."""

from collections.abc import Callable, Hashable, Iterable
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

    It knows an argument by the identity of the object and the word beside it.
    """

    def __init__(self, function: Callable[[A, int], R]) -> None:
        self._function = function
        self._known: dict[tuple[int, int], tuple[A, R]] = {}

    def __call__(self, arguments: Iterable[tuple[A, int]]) -> list[R]:
        """Return ``function`` of each argument; they differ from each other."""
        known, function = self._known, self._function
        self._known = {
            (id(argument), word): known.get((id(argument), word))
            or (argument, function(argument, word))
            for argument, word in arguments
        }
        return [found for _, found in self._known.values()]

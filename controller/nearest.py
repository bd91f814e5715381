# SPDX-License-Identifier: GPL-2.0-or-later
"""Did you mean: the known word nearest to an unknown one."""

from collections.abc import Iterable
from difflib import get_close_matches


def expected(word: str, known: Iterable[str]) -> str:
    """Return what was expected: the nearest known word, else all of them."""
    words = list(known)
    by_lower = {each.lower(): each for each in words}
    near = get_close_matches(word.lower(), by_lower, n=1)
    if near:
        return f"did you mean {by_lower[near[0]]}?"
    return f"expected {one_of(words)}" if words else "expected none"


def one_of(words: Iterable[str]) -> str:
    """Return ``a, b or c``."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last

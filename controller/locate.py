# SPDX-License-Identifier: GPL-2.0-or-later
"""Where in a TOML text a key or an array element stands.

`tomllib` says what a text means, not where.  So the line of a value is found by
asking it again: the shortest beginning of the text that has the value ends there.
"""

import tomllib
from collections.abc import Sequence

Path = Sequence[str | int]


def line_of(text: str, path: Path) -> int:
    """Return the line, from 1, on which the value at ``path`` ends.

    ``text`` is valid TOML.  Without such a value it is the last line.
    """
    lines = text.split("\n")
    without, having = 0, len(lines)
    while having - without > 1:
        middle = (without + having) // 2
        found, length = _has(lines, middle, without, path)
        if found:
            having = length
        else:
            without = middle
    return having


def _has(lines: Sequence[str], length: int, least: int, path: Path) -> tuple[bool, int]:
    """Ask the longest readable beginning, ``least`` < its length <= ``length``."""
    for shorter in range(length, least, -1):
        # An array may be open at the cut.
        for end in ("", "\n]"):
            try:
                tree = tomllib.loads("\n".join(lines[:shorter]) + end)
            except tomllib.TOMLDecodeError:
                continue
            return _reaches(tree, path), shorter
    return False, length


def _reaches(tree: object, path: Path) -> bool:
    for step in path:
        is_key = isinstance(tree, dict) and step in tree
        is_index = isinstance(tree, list) and step in range(len(tree))
        if not (is_key or is_index):
            return False
        tree = tree[step]  # type: ignore[index]
    return True

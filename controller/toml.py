# SPDX-License-Identifier: GPL-2.0-or-later
"""The text of a policy file as a tree, no deeper and no larger than can be shown.

`tomllib` has no limits of its own: brackets that are deep enough end the stack of
the interpreter, and a number that is long enough cannot be written in a message.
"""

import re
import tomllib
from collections.abc import Iterator

from controller.locate import Path, line_of

DEEPEST = 8  # tables and arrays within each other; a policy file needs four
INTEGERS = range(-(1 << 63), 1 << 63)  # those that TOML 1.0.0 asks for

TOO_DEEP = f"more than {DEEPEST} tables or arrays within each other, expected fewer"
TOO_LONG = "an integer of more than 64 bits, expected a smaller one"


class TomlError(ValueError):
    """A text that is no TOML, or too much of it; ``line`` counts from 1."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


def parsed(text: str) -> dict[str, object]:
    """Return what a text says, or raise `TomlError`."""
    tree: dict[str, object] = {}
    try:
        tree = tomllib.loads(text)
        problem = next(_problems(tree, text), None)
    except tomllib.TOMLDecodeError as error:
        raise _syntax(str(error), text) from None
    except RecursionError:
        problem = TomlError(_line_of_error(text, RecursionError), TOO_DEEP)
    except ValueError:  # int() takes no more than 4300 digits
        problem = TomlError(_line_of_error(text, ValueError), TOO_LONG)
    if problem is not None:
        raise problem
    return tree


def _syntax(message: str, text: str) -> TomlError:
    """Turn a message of `tomllib` into a line and what was expected there."""
    what, _, place = message.partition(" (at ")
    found = re.match(r"line (\d+), column (\d+)", place)
    line = int(found[1]) if found else len(text.rstrip("\n").split("\n"))
    if re.match(r"Cannot (declare|overwrite|mutate)", what):
        text = "declared before, expected each table and each key once"
        return TomlError(line, text)
    return TomlError(line, f"no TOML: {what[:1].lower()}{what[1:]}")


def _problems(tree: object, text: str) -> Iterator[TomlError]:
    yield from (TomlError(line_of(text, path), what) for path, what in _too_much(tree))


def _too_much(tree: object) -> Iterator[tuple[Path, str]]:
    """Yield the places that are too deep or too long."""
    rest: list[tuple[Path, object]] = [((), tree)]
    while rest:
        path, value = rest.pop()
        below: list[tuple[str | int, object]] = []
        if isinstance(value, dict):
            below = list(value.items())
        elif isinstance(value, list):
            below = list(enumerate(value))
        elif isinstance(value, int) and value not in INTEGERS:
            yield path, TOO_LONG
        if below and len(path) >= DEEPEST:
            yield path, TOO_DEEP
        else:
            rest += [((*path, step), each) for step, each in below]


def _line_of_error(text: str, kind: type[Exception]) -> int:
    """Return the line on which the shortest beginning that raises this ends."""
    lines = text.split("\n")
    without, having = 0, len(lines)
    while having - without > 1:
        middle = (without + having) // 2
        if _raises("\n".join(lines[:middle]), kind):
            having = middle
        else:
            without = middle
    return having


def _raises(text: str, kind: type[Exception]) -> bool:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    except kind:
        return True
    return False

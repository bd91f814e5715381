# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables for people: aligned columns, and colours where they are seen."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from controller.domains import Label

# ECMA-48 SGR; orange is of the 256 colours, black must show on black.
COLOURS: Mapping[str, str] = MappingProxyType(
    {
        Label.RED.value: "31",
        Label.ORANGE.value: "38;5;208",
        Label.YELLOW.value: "33",
        Label.GREEN.value: "32",
        Label.GRAY.value: "37",
        Label.BLUE.value: "34",
        Label.PURPLE.value: "35",
        Label.BLACK.value: "90",
        "bold": "1",
    }
)


def coloured(text: str, colour: str) -> str:
    """Return ``text`` in one of `COLOURS`."""
    return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m"


def table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    colours: Sequence[str] | None = None,
) -> list[str]:
    """Return a line for the heads and one for each row, columns aligned.

    ``colours`` has the colour of each row's first cell; without it the lines
    are plain.  Cells may hold what another domain said.
    """
    cells = [[printable(cell) for cell in row] for row in (heads, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines: list[str] = []
    for index, row in enumerate(cells):
        padded = [c.ljust(width) for c, width in zip(row, widths, strict=True)]
        if colours is not None and index == 0:
            padded = [coloured(cell, "bold") for cell in padded]
        elif colours is not None:
            padded[0] = coloured(padded[0], colours[index - 1])
        lines.append("  ".join(padded).rstrip())
    return lines


def printable(text: str) -> str:
    """Return ``text`` without what could drive the terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)

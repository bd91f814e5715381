# SPDX-License-Identifier: GPL-2.0-or-later
"""The pages of the repository, and the blocks and words in them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
FENCE = re.compile(
    r"^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: the words after the fence, and the lines inside."""

    info: str
    body: str

    def commands(self) -> Iterator[str]:
        """Yield the command lines of a block of a shell."""
        for line in self.body.splitlines():
            if self.info == "console" and line.startswith("$ "):
                yield line.removeprefix("$ ")
            elif self.info == "sh" and line.strip():
                yield line


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    found = FENCE.finditer(page.read_text())
    return [Block(each["info"].strip(), each["body"]) for each in found]


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return FENCE.sub("", page.read_text())


def name(page: Path) -> str:
    """Return a page's path below the root."""
    return str(page.relative_to(ROOT))

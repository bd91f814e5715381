# SPDX-License-Identifier: GPL-2.0-or-later
"""The file of wg-quick(8) as sections of known keys, to an allow-list.

wg-quick runs what a file says in a shell; nothing here runs anything.  A key
that is not known is an error and never ignored: who asks for more than a tunnel
is told no.  The format is that of wg(8), "CONFIGURATION FILE FORMAT".

No message holds a value, for it could be a secret that stands in the wrong line.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

MOST_BYTES = 65536
MOST_LINES = 4096

_NAME = re.compile(r"[A-Za-z]{1,24}")  # no key, not even half of one, is that short


class ProfileError(ValueError):
    """A profile that is refused: ``FILE:LINE: what, and what was expected``."""


class Section(Enum):
    """What a section is about; the value is its name in the file."""

    INTERFACE = "Interface"
    PEER = "Peer"


KEYS = {
    Section.INTERFACE: ("PrivateKey", "Address", "DNS", "MTU", "ListenPort"),
    Section.PEER: (
        "PublicKey",
        "PresharedKey",
        "AllowedIPs",
        "Endpoint",
        "PersistentKeepalive",
    ),
}
LISTS = frozenset({"Address", "DNS", "AllowedIPs"})
_PROGRAM = "would run a program, which a profile must not; delete the line"
REFUSED = {
    "PreUp": _PROGRAM,
    "PostUp": _PROGRAM,
    "PreDown": _PROGRAM,
    "PostDown": _PROGRAM,
    "Table": "routing is not the profile's to decide; delete the line",
    "FwMark": "marks are not the profile's to decide; delete the line",
    "SaveConfig": "nothing writes to a profile; delete the line",
}


@dataclass(frozen=True, slots=True)
class Value:
    """What stands behind a key, and where: ``FILE:LINE: KEY``."""

    where: str
    untrusted_text: str = field(repr=False)

    def refused(self, expected: str) -> ProfileError:
        """Return the error that says what was expected."""
        return ProfileError(f"{self.where}: expected {expected}")


@dataclass(slots=True)
class Block:
    """One section: its values by key, in the order of the file."""

    where: str
    section: Section
    values: dict[str, list[Value]] = field(default_factory=dict)

    def needed(self, key: str) -> Value:
        """Return the value of a key that must be there."""
        if key not in self.values:
            raise ProfileError(f"{self.where}: [{self.section.value}] has no {key}")
        return self.values[key][0]

    def maybe(self, key: str) -> Value | None:
        """Return the value of a key, if it is there."""
        return self.values[key][0] if key in self.values else None

    def each(self, key: str) -> Iterator[Value]:
        """Yield the parts of a list, which may be given in several lines."""
        for value in self.values.get(key, ()):
            for part in value.untrusted_text.split(","):
                if part.strip():
                    yield Value(value.where, part.strip())


def sections(untrusted_profile: bytes, name: str) -> list[Block]:
    """Part a file into its sections; ``name`` is what messages call it.

    Raises `ProfileError`.
    """
    blocks: list[Block] = []
    for number, untrusted_line in enumerate(_lines(untrusted_profile, name), 1):
        where = f"{name}:{number}"
        line = untrusted_line.partition("#")[0].strip()
        if line.startswith("["):
            blocks.append(Block(where, _section(line, where)))
        elif line and blocks:
            _take(blocks[-1], line, where)
        elif line:
            raise ProfileError(f"{where}: expected [Interface] or [Peer] first")
    return blocks


def _lines(untrusted_profile: bytes, name: str) -> list[str]:
    if len(untrusted_profile) > MOST_BYTES:
        raise ProfileError(f"{name}:1: expected at most {MOST_BYTES} bytes")
    try:
        text = untrusted_profile.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = untrusted_profile.count(b"\n", 0, error.start) + 1
        # Not "from error": that holds the text.
        raise ProfileError(f"{name}:{number}: expected text in UTF-8") from None
    lines = text.replace("\r\n", "\n").split("\n")
    if len(lines) > MOST_LINES:
        raise ProfileError(f"{name}:{MOST_LINES}: expected no more lines")
    for number, line in enumerate(lines, 1):
        if not line.replace("\t", " ").isprintable():
            raise ProfileError(f"{name}:{number}: expected printable text")
    return lines


def _section(line: str, where: str) -> Section:
    for section in Section:
        if line.lower() == f"[{section.value}]".lower():
            return section
    raise ProfileError(f"{where}: expected [Interface] or [Peer]")


def _take(block: Block, line: str, where: str) -> None:
    untrusted_key, equals, untrusted_text = line.partition("=")
    word = untrusted_key.strip().lower()
    for key, reason in REFUSED.items():
        if word == key.lower():
            raise ProfileError(f"{where}: {key}: {reason}")
    known = {key.lower(): key for key in KEYS[block.section]}
    if word not in known or not equals:
        named = f"{word}: " if _NAME.fullmatch(word) else ""
        expected = ", ".join(KEYS[block.section])
        raise ProfileError(f"{where}: {named}expected one of {expected}, and a value")
    key = known[word]
    if key in block.values and key not in LISTS:
        raise ProfileError(f"{where}: {key}: expected it once in a section")
    value = Value(f"{where}: {key}", untrusted_text.strip())
    block.values.setdefault(key, []).append(value)

# SPDX-License-Identifier: GPL-2.0-or-later
"""The words of an OpenVPN configuration, cut as OpenVPN cuts them.

Quoting and escapes are those of ``parse_line`` and ``bypass_doubledash``
(OpenVPN 2.6, ``src/openvpn/options.c``), blocks those of
``read_inline_file``: what the daemon would take for an option must not look
like something else here.  Pure.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rules.model import shown

MOST_BYTES = 1 << 20  # of a whole file
LONGEST = 255  # bytes of a line of words, and of a word (OPTION_LINE_SIZE - 1)
MOST_WORDS = 16  # MAX_PARMS

_SPACES = " \t\r"  # isspace(3) without the controls that are refused
_ESCAPABLE = {"\\", '"', *_SPACES}
_ESCAPE = re.compile(r"\\(.)")
# Between words a backslash is lost before a space and does not hide a comment.
_WORD = re.compile(
    r"""(?:\\?[ \t\r])*
    (?: (?P<end> \Z | \\?[;\#])
      | "(?P<double> (?:[^"\\] | \\.)*)"
      | '(?P<single> [^']*)'
      | (?P<plain> (?:[^ \t\r\\"'] | \\[^; \t\r\#]) (?:[^ \t\r\\] | \\.)*) )""",
    re.VERBOSE,
)
_CONTROLS = {*map(chr, range(32)), "\x7f"} - {*_SPACES}
_BOM = "\ufeff"


class ProfileError(ValueError):
    """A profile that is not used; says ``file:line: what, what was expected``."""


@dataclass(frozen=True, slots=True)
class Line:
    """An option and its arguments; ``number`` counts from 1.

    ``block`` is what stands between ``<name>`` and ``</name>``, None of an
    option without a block.
    """

    number: int
    name: str
    arguments: tuple[str, ...] = ()
    block: tuple[str, ...] | None = field(default=None, repr=False)


def lines(untrusted_file: bytes) -> Iterator[Line]:
    """Yield the options of a file; `ProfileError` as ``line: what`` where it ends.

    Stricter than OpenVPN: the file is UTF-8 without control characters, and no
    line ends in a backslash.
    """
    texts = enumerate(_text(untrusted_file).split("\n"), 1)
    for number, untrusted_text in texts:
        try:
            words = split(untrusted_text)
            _check(untrusted_text, words)
        except ValueError as error:
            raise ProfileError(f"{number}: {error}") from None
        if not words:
            continue
        name, *arguments = words
        if len(name) > len("--") and name.startswith("--"):
            name = name[2:]
        if not arguments and name.startswith("<") and name.endswith(">"):
            block = _block(texts, number, name[1:-1])
            yield Line(number, name[1:-1], block=block)
        else:
            yield Line(number, name, tuple(arguments))


def split(untrusted_text: str) -> list[str]:
    """Return the words of a line; `ValueError` says what is wrong with it."""
    words: list[str] = []
    place = 0
    while found := _WORD.match(untrusted_text, place):
        if found["end"] is not None:
            return words
        escaped = found["double"] or found["plain"] or ""
        for character in _ESCAPE.findall(escaped):
            if character not in _ESCAPABLE:
                raise ValueError(f"a backslash before {character!r}: expected two")
        words.append(found["single"] or _ESCAPE.sub(r"\1", escaped))
        place = found.end()
    raise ValueError("a quotation mark or backslash without its other half")


def quoted(word: str) -> str:
    """Return a word so that OpenVPN reads it as it is, in a file or a command.

    `ValueError` for what it cannot read: control characters and words that
    are too long.
    """
    if not word.isprintable() or len(word.encode()) > LONGEST:
        raise ValueError("expected at most 255 printable characters")
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def written(words: Sequence[str]) -> str:
    """Return the line of an option and its arguments, or raise `ValueError`."""
    line = " ".join([words[0], *map(quoted, words[1:])])
    if len(line.encode()) > LONGEST:
        raise ValueError(f"expected at most {LONGEST} bytes, written with quotes")
    return line


def _text(untrusted_file: bytes) -> str:
    if len(untrusted_file) > MOST_BYTES:
        raise ProfileError(f"1: {len(untrusted_file)} bytes, expected a profile")
    try:
        text = untrusted_file.decode()
    except UnicodeDecodeError as error:
        number = untrusted_file[: error.start].count(b"\n") + 1
        raise ProfileError(f"{number}: expected text in UTF-8") from None
    for number, line in enumerate(text.split("\n"), 1):
        if strange := [c for c in line if c in _CONTROLS]:
            raise ProfileError(f"{number}: {strange[0]!r}: expected no such character")
    return text.removeprefix(_BOM)


def _check(untrusted_text: str, words: list[str]) -> None:
    if words and len(untrusted_text.encode()) > LONGEST:
        raise ValueError(f"{shown(words[0])}: a line over {LONGEST} bytes")
    if len(words) > MOST_WORDS:
        raise ValueError(f"{shown(words[0])}: over {MOST_WORDS} words in a line")


def _block(texts: Iterator[tuple[int, str]], begin: int, name: str) -> tuple[str, ...]:
    found: list[str] = []
    for _, untrusted_text in texts:
        if untrusted_text.lstrip(_SPACES).startswith(f"</{name}>"):
            return tuple(found)
        found.append(untrusted_text.strip(_SPACES))
    raise ProfileError(f"{begin}: {shown(f'<{name}>')} is not closed")

# SPDX-License-Identifier: GPL-2.0-or-later
"""The values of a policy file, each parsed by itself."""

import re
import stat
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TypeVar

from controller.domains import HostUplink, LabUplink, Nic, Uplink
from controller.nearest import expected, one_of
from controller.personality import Personality, known
from rules.model import Rule, RuleError
from rules.parse import parse_text

Word = TypeVar("Word", bound=Enum)

MAX_RULES = 10_000  # /qubes-firewall/IP/NNNN
# Narrower than net/core/dev.c, dev_valid_name(): the name goes into nft text.
INTERFACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}\Z")
PCI = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]\Z")
NO_NAMES = ("", "none")  # which `ravelin prefs` takes for no netvm
RELATIVE = re.compile(r"(?:^| )expire=\+")


class WrongError(ValueError):
    """A value that cannot be used."""


def word(words: type[Word], untrusted: object) -> Word:
    """Return the member that a word stands for."""
    for word in words:
        if untrusted == word.value:
            return word
    raise WrongError(_no_word(untrusted, [str(word.value) for word in words]))


def _no_word(untrusted: object, words: list[str]) -> str:
    if not isinstance(untrusted, str):
        return f"{untrusted} is no text, expected {one_of(words)}"
    hint = expected(untrusted, words)
    more = f" ({one_of(words)})" if "did you mean" in hint else ""
    return f'unknown word "{untrusted}", {hint}{more}'


def personality(untrusted: object) -> Personality:
    """Return the personality that a word stands for."""
    if isinstance(untrusted, str) and untrusted in known():
        return known()[untrusted]
    raise WrongError(_no_word(untrusted, list(known())))


def secret(folder: Path, untrusted: object) -> Path:
    """Return a file that holds a key, a password, or where someone hides."""
    if not isinstance(untrusted, str) or not untrusted:
        raise WrongError(f"{untrusted!r} is no name, expected that of a file")
    file = folder / untrusted
    try:
        mode = file.stat().st_mode
    except OSError as error:
        raise WrongError(f"{file}: {error.strerror}, expected a file") from None
    if not stat.S_ISREG(mode):
        raise WrongError(f"{file} is no file, expected one")
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        rights = f"{stat.S_IMODE(mode):04o}"
        raise WrongError(f"{file}: others may use it ({rights}), expected mode 0600")
    return file


def text(read: Callable[[str], object], untrusted: object) -> str:
    """Return text that a personality can read; it may hold what is not to be shown."""
    if not isinstance(untrusted, str):
        raise WrongError("is no text, expected some")
    try:
        read(untrusted)
    except ValueError as error:
        raise WrongError(str(error)) from None
    return untrusted


def name(untrusted: object) -> str:
    """Return the name of a domain."""
    if isinstance(untrusted, str) and untrusted not in NO_NAMES:
        return untrusted
    raise WrongError(
        f"{untrusted!r} is no name, expected that of a domain (or no netvm at all)"
    )


def truth(untrusted: object) -> bool:
    """Return true or false."""
    if isinstance(untrusted, bool):
        return untrusted
    raise WrongError(f"{untrusted!r}, expected true or false")


def uplink(untrusted: object) -> Uplink:
    """Return the way out that a word stands for."""
    if untrusted == "host":
        return HostUplink()
    if untrusted == "lab":
        return LabUplink()
    if isinstance(untrusted, str) and INTERFACE.match(untrusted):
        return Nic(untrusted)
    wanted = 'expected "host", "lab" or the name of a network interface'
    if isinstance(untrusted, str) and PCI.match(untrusted):
        raise WrongError(f"{untrusted} is a PCI device, no interface here, {wanted}")
    raise WrongError(f"{untrusted!r} is no uplink, {wanted}")


def rules(untrusted: object) -> list[object]:
    """Return the lines of a list of rules."""
    if not isinstance(untrusted, list):
        raise WrongError(
            f'{untrusted!r} is no list, expected rules as ["accept dsthost=…", "drop"]'
        )
    if len(untrusted) > MAX_RULES:
        raise WrongError(f"{len(untrusted)} rules, expected at most {MAX_RULES}")
    return untrusted


def rule(index: int, untrusted: object, now: int) -> Rule:
    """Return rule ``index``; ``now`` is in seconds since the Unix epoch."""
    if not isinstance(untrusted, str):
        raise WrongError(f"rule {index}: {untrusted!r}, expected text")
    if RELATIVE.search(untrusted):
        raise WrongError(
            f"rule {index}: expire=+N counts from now, expected seconds since 1970 "
            "(`ravelin firewall DOMAIN add … expire=+N` writes them)"
        )
    try:
        return parse_text(untrusted, now=now)
    except RuleError as error:
        raise WrongError(f"rule {index}: {error}") from None

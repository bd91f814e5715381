# SPDX-License-Identifier: GPL-2.0-or-later
"""The policy file: TOML in, `Domains` out, or every mistake with its line."""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path as FilePath
from typing import TypeVar

from controller.addresses import number_names
from controller.domains import (
    ACCEPT_ALL,
    Domain,
    Domains,
    DomainsError,
    HostUplink,
    Label,
    LabUplink,
    Nic,
    Personality,
    Uplink,
)
from controller.locate import Path, line_of
from controller.nearest import expected, one_of
from rules.model import Policy, Rule, RuleError
from rules.parse import parse_text

T = TypeVar("T")
Word = TypeVar("Word", bound=Enum)

KEYS = ("label", "personality", "netvm", "uplink", "firewall", "ipv6")
MAX_RULES = 10_000  # /qubes-firewall/IP/NNNN
# Narrower than net/core/dev.c, dev_valid_name(): the name goes into nft text.
INTERFACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}\Z")
PCI = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]\Z")
RELATIVE = re.compile(r"(?:^| )expire=\+")


class PolicyError(ValueError):
    """A policy file that cannot be used; ``str()`` is a line for each mistake."""

    def __init__(self, file: str, mistakes: list[tuple[int, str]]) -> None:
        found = sorted(set(mistakes))
        super().__init__("\n".join(f"{file}:{line}: {text}" for line, text in found))


class _WrongError(ValueError):
    """A value that cannot be used; ``index`` is its place in a list."""

    def __init__(self, text: str, index: int | None = None) -> None:
        super().__init__(text)
        self.index = index


def text_of(file: FilePath) -> str:
    """Return the text of a policy file as it is, or raise `PolicyError`."""
    try:
        return file.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise PolicyError(str(file), [(1, f"{reason}, expected TOML")]) from None


def read(text: str, *, file: str, qids: Mapping[str, int], now: int) -> Domains:
    """Read a policy file.

    ``file`` is how messages name it, ``qids`` the numbers given so far, ``now``
    the time in seconds since the Unix epoch.  Raise `PolicyError`.
    """
    tables = _tables(text, file)
    try:
        numbers = number_names(tables, qids)
    except LookupError as error:
        raise PolicyError(file, [(1, f"{error}, expected fewer domains")]) from None
    readers = {name: _Reader(name, table) for name, table in tables.items()}
    found = {n: reader.domain(numbers[n], now) for n, reader in readers.items()}
    mistakes = [mistake for reader in readers.values() for mistake in reader.mistakes]
    if mistakes:
        raise PolicyError(
            file, [(line_of(text, path), what) for path, what in mistakes]
        )
    try:
        return Domains(found)
    except DomainsError as error:
        places: list[tuple[int, str]] = []
        for problem in error.problems:
            key = () if problem.key is None else (problem.key,)
            line = line_of(text, ("domains", problem.domain, *key))
            places.append((line, f"{problem.domain}: {problem.text}"))
        raise PolicyError(file, places) from None


def _tables(text: str, file: str) -> Mapping[str, Mapping[str, object]]:
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(file, [_syntax(str(error), text)]) from None
    mistakes = [
        (line_of(text, (key,)), f"unknown table {key}, {expected(key, ['domains'])}")
        for key in tree
        if key != "domains"
    ]
    domains = tree.get("domains", {})
    entries = domains.items() if isinstance(domains, dict) else ()
    if not entries:
        mistakes.append((1, "no domains, expected a table [domains.NAME] for each"))
    mistakes += [
        (line_of(text, ("domains", name)), f"{name}: expected a table [domains.{name}]")
        for name, table in entries
        if not isinstance(table, dict)
    ]
    if mistakes:
        raise PolicyError(file, mistakes)
    return dict(entries)


def _syntax(message: str, text: str) -> tuple[int, str]:
    """Turn a message of `tomllib` into a line and what was expected there."""
    what, _, place = message.partition(" (at ")
    found = re.match(r"line (\d+), column (\d+)", place)
    line = int(found[1]) if found else len(text.rstrip("\n").split("\n"))
    if re.match(r"Cannot (declare|overwrite|mutate)", what):
        return line, "declared before, expected each table and each key once"
    return line, f"no TOML: {what[:1].lower()}{what[1:]}"


@dataclass(slots=True)
class _Reader:
    """Reads one table and collects what is wrong with it."""

    name: str
    untrusted: Mapping[str, object]
    mistakes: list[tuple[Path, str]] = field(default_factory=list)

    def domain(self, qid: int, now: int) -> Domain:
        for key in self.untrusted.keys() - set(KEYS):
            self._mistake(f"unknown key {key}, {expected(key, KEYS)}", key)
        return Domain(
            name=self.name,
            qid=qid,
            label=self._take("label", lambda v: _word(Label, v), Label.RED),
            personality=self._take(
                "personality", lambda v: _word(Personality, v), None
            ),
            netvm=self._take("netvm", _name, None),
            uplink=self._take("uplink", _uplink, None),
            policy=self._take("firewall", lambda v: _policy(v, now), ACCEPT_ALL),
            ipv6=self._take("ipv6", _truth, default=True),
        )

    def _take(self, key: str, read: Callable[[object], T], default: T) -> T:
        if key not in self.untrusted:
            return default
        try:
            return read(self.untrusted[key])
        except _WrongError as error:
            place = () if error.index is None else (error.index,)
            self._mistake(f"{key}: {error}", key, *place)
            return default

    def _mistake(self, text: str, *path: str | int) -> None:
        self.mistakes.append((("domains", self.name, *path), f"{self.name}: {text}"))


def _word(words: type[Word], untrusted: object) -> Word:
    known = [str(word.value) for word in words]
    if not isinstance(untrusted, str):
        raise _WrongError(f"{untrusted} is no text, expected {one_of(known)}")
    for word in words:
        if untrusted == word.value:
            return word
    hint = expected(untrusted, known)
    more = f" ({one_of(known)})" if "did you mean" in hint else ""
    raise _WrongError(f'unknown word "{untrusted}", {hint}{more}')


def _name(untrusted: object) -> str:
    if isinstance(untrusted, str) and untrusted:
        return untrusted
    raise _WrongError(
        f"{untrusted!r} is no name, expected that of a domain (or no netvm at all)"
    )


def _truth(untrusted: object) -> bool:
    if isinstance(untrusted, bool):
        return untrusted
    raise _WrongError(f"{untrusted!r}, expected true or false")


def _uplink(untrusted: object) -> Uplink:
    if untrusted == "host":
        return HostUplink()
    if untrusted == "lab":
        return LabUplink()
    if isinstance(untrusted, str) and INTERFACE.match(untrusted):
        return Nic(untrusted)
    wanted = 'expected "host", "lab" or the name of a network interface'
    if isinstance(untrusted, str) and PCI.match(untrusted):
        raise _WrongError(f"{untrusted} is a PCI device, no interface here, {wanted}")
    raise _WrongError(f"{untrusted!r} is no uplink, {wanted}")


def _policy(untrusted: object, now: int) -> Policy:
    if not isinstance(untrusted, list):
        raise _WrongError(
            f'{untrusted!r} is no list, expected rules as ["accept dsthost=…", "drop"]'
        )
    if len(untrusted) > MAX_RULES:
        raise _WrongError(f"{len(untrusted)} rules, expected at most {MAX_RULES}")
    return Policy(tuple(_rules(untrusted, now)))


def _rules(untrusted: list[object], now: int) -> Iterator[Rule]:
    for index, line in enumerate(untrusted):
        if not isinstance(line, str):
            raise _WrongError(f"rule {index}: {line!r}, expected text", index)
        if RELATIVE.search(line):
            raise _WrongError(
                f"rule {index}: expire=+N counts from now, expected seconds since 1970 "
                "(`ravelin firewall DOMAIN add … expire=+N` writes them)",
                index,
            )
        try:
            yield parse_text(line, now=now)
        except RuleError as error:
            raise _WrongError(f"rule {index}: {error}", index) from None

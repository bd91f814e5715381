# SPDX-License-Identifier: GPL-2.0-or-later
"""The policy file: TOML in, `Domains` out, or every mistake with its line."""

import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path as FilePath
from typing import TypeVar

from controller import assertions, profiles, values
from controller.addresses import number_names
from controller.assertions import Assertion
from controller.domains import (
    ACCEPT_ALL,
    Domain,
    Domains,
    DomainsError,
    Label,
)
from controller.locate import Path, line_of
from controller.nearest import expected, one_of
from controller.personality import Personality, keys, known
from controller.toml import TomlError, parsed
from rules.model import Policy, Rule

T = TypeVar("T")

TABLES = ("domains", "assert")
MOST = 10  # mistakes of one list that are named; to find their lines takes time
KEYS = ("label", "personality", "netvm", "uplink", "firewall", "ipv6")


class PolicyError(ValueError):
    """A policy file that cannot be used; ``str()`` is a line for each mistake."""

    def __init__(self, file: str, mistakes: list[tuple[int, str]]) -> None:
        found = sorted(set(mistakes))
        super().__init__("\n".join(f"{file}:{line}: {text}" for line, text in found))


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
    folder = FilePath(file).resolve().parent
    readers = {name: _Reader(name, table, folder) for name, table in tables.items()}
    found = {n: reader.domain(numbers[n], now) for n, reader in readers.items()}
    mistakes = [mistake for reader in readers.values() for mistake in reader.mistakes]
    mistakes += assertions.read(text, tables)[1]
    if mistakes:
        raise PolicyError(
            file, [(line_of(text, path), what) for path, what in mistakes]
        )
    try:
        domains = Domains(found)
        profiles.check(domains)
    except DomainsError as error:
        places: list[tuple[int, str]] = []
        for problem in error.problems:
            key = () if problem.key is None else (problem.key,)
            line = line_of(text, ("domains", problem.domain, *key))
            places.append((line, f"{problem.domain}: {problem.text}"))
        raise PolicyError(file, places) from None
    return domains


def asserted(text: str) -> tuple[Assertion, ...]:
    """Return what a text that `read` has taken asserts of its domains."""
    return assertions.read(text, tomllib.loads(text)["domains"])[0]


def _tables(text: str, file: str) -> Mapping[str, Mapping[str, object]]:
    try:
        tree = parsed(text)
    except TomlError as error:
        raise PolicyError(file, [(error.line, str(error))]) from None
    mistakes = [
        (line_of(text, (key,)), f"unknown table {key}, {expected(key, TABLES)}")
        for key in tree
        if key not in TABLES
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


@dataclass(slots=True)
class _Reader:
    """Reads one table and collects what is wrong with it."""

    name: str
    untrusted: Mapping[str, object]
    folder: FilePath
    mistakes: list[tuple[Path, str]] = field(default_factory=list)

    def domain(self, qid: int, now: int) -> Domain:
        every = (*KEYS, *keys())
        for key in self.untrusted.keys() - set(every):
            self._mistake(f"unknown key {key}, {expected(key, every)}", key)
        personality = self._take("personality", values.personality, None)
        self._belong(personality)
        return Domain(
            name=self.name,
            qid=qid,
            label=self._take("label", lambda v: values.word(Label, v), Label.RED),
            personality=personality,
            netvm=self._take("netvm", values.name, None),
            uplink=self._take("uplink", values.uplink, None),
            policy=self._policy(now),
            ipv6=self._take("ipv6", values.truth, default=True),
            files=tuple(self._files(personality)),
            switches=frozenset(self._switches(personality)),
            texts=tuple(self._texts(personality)),
        )

    def _policy(self, now: int) -> Policy:
        lines = self._take("firewall", values.rules, None)
        if lines is None:
            return ACCEPT_ALL
        rules: list[Rule] = []
        for index, line in enumerate(lines):
            try:
                rules.append(values.rule(index, line, now))
            except values.WrongError as error:
                self._mistake(f"firewall: {error}", "firewall", index)
                if index - len(rules) + 1 >= MOST:
                    break
        return Policy(tuple(rules))

    def _belong(self, personality: Personality | None) -> None:
        """Name the keys that are those of other personalities, and what is missing."""
        mine: tuple[str, ...] = ()
        if personality is not None:
            mine = personality.keys
            for key in set(personality.needs) - self.untrusted.keys():
                text = f"{personality.value} needs a file, expected {key} = FILE"
                self._mistake(text)
        for key in (self.untrusted.keys() & set(keys())) - set(mine):
            owners = [p.value for p in known().values() if key in p.keys]
            text = f"{key}: only for {one_of(owners)}, expected no such key"
            self._mistake(text, key)

    def _files(self, personality: Personality | None) -> Iterator[tuple[str, FilePath]]:
        wanted = (*personality.needs, *personality.takes) if personality else ()
        for key in wanted:
            found = self._take(key, lambda v: values.secret(self.folder, v), None)
            if found is not None:
                yield key, found

    def _switches(self, personality: Personality | None) -> Iterator[str]:
        for key in personality.switches if personality else ():
            if self._take(key, values.truth, default=False):
                yield key

    def _texts(self, personality: Personality | None) -> Iterator[tuple[str, str]]:
        for text in personality.texts if personality else ():
            found = self._take(text.key, partial(values.text, text.read), "")
            if found:
                yield text.key, found

    def _take(self, key: str, read: Callable[[object], T], default: T) -> T:
        if key not in self.untrusted:
            return default
        try:
            return read(self.untrusted[key])
        except values.WrongError as error:
            self._mistake(f"{key}: {error}", key)
            return default

    def _mistake(self, text: str, *path: str | int) -> None:
        self.mistakes.append((("domains", self.name, *path), f"{self.name}: {text}"))

# SPDX-License-Identifier: GPL-2.0-or-later
"""What the user asserts of the network: each ``[[assert]]`` of a policy file."""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from controller.locate import Path, line_of
from controller.nearest import expected
from rules.model import Anywhere, Destination, Network, Ports, Proto, Rule, RuleError
from rules.options import read_rule

T = TypeVar("T")
Tables = Mapping[str, Mapping[str, object]]

KEYS = ("from", "to", "proto", "ports", "expect")
THROUGH = "only-through "
EXPECT = ("reach", "blocked", f"{THROUGH}NAME")
HEADER = re.compile(r"\s*\[\[\s*assert\s*\]\]")
# What looks like an address or like a name of the outside; all else is a domain.
OUTSIDE = re.compile(r"[.:/]")


@dataclass(frozen=True, slots=True)
class Home:
    """The addresses of a domain, as a destination."""

    domain: str


@dataclass(frozen=True, slots=True)
class Reach:
    """Every packet that is meant gets there."""


@dataclass(frozen=True, slots=True)
class Blocked:
    """No packet that is meant gets there."""


@dataclass(frozen=True, slots=True)
class OnlyThrough:
    """Every packet that is meant and gets there passes this domain."""

    domain: str


Expect = Reach | Blocked | OnlyThrough


@dataclass(frozen=True, slots=True)
class Assertion:
    """What must hold of the packets of some domains to some destinations.

    ``proto`` None is every protocol, ``ports`` None every port; ``line`` is where
    it stands in the policy file, from 1.
    """

    sources: tuple[str, ...]
    targets: tuple[Destination | Home, ...]
    proto: Proto | None
    ports: Ports | None
    expect: Expect
    line: int

    def __str__(self) -> str:
        """Return it as one line for people."""
        proto = "" if self.proto is None else f" {self.proto.value}"
        ports = "" if self.ports is None else f" {_shown(self.ports)}"
        where = ", ".join(map(_target, self.targets))
        return f"{', '.join(self.sources)} to {where}{proto}{ports}: {self.expected}"

    @property
    def expected(self) -> str:
        """What is expected, as the policy file has it."""
        match self.expect:
            case Reach():
                return "reach"
            case Blocked():
                return "blocked"
            case OnlyThrough(domain):
                return f"{THROUGH}{domain}"


def _shown(ports: Ports) -> str:
    alone = ports.first == ports.last
    return str(ports.first) if alone else f"{ports.first}-{ports.last}"


def _target(target: Destination | Home) -> str:
    match target:
        case Anywhere():
            return "anywhere"
        case Network(prefix):
            host = prefix.prefixlen == prefix.max_prefixlen
            return str(prefix.network_address if host else prefix)
        case Home(domain):
            return domain
        case named:
            return named.host


def read(
    text: str, domains: Tables
) -> tuple[tuple[Assertion, ...], list[tuple[Path, str]]]:
    """Return the assertions of a text that is TOML, and what is wrong with others.

    ``domains`` are the tables of all domains in it.  A mistake is a place in the
    text, and what is wrong there and what was expected.
    """
    untrusted = tomllib.loads(text).get("assert", [])
    if not isinstance(untrusted, list):
        return (), [(("assert",), "assert: expected [[assert]], a table for each")]
    found: list[Assertion] = []
    mistakes: list[tuple[Path, str]] = []
    lines = _lines(text, len(untrusted))
    for number, table in enumerate(untrusted):
        place: Path = ("assert", number)
        if not isinstance(table, dict):
            mistakes.append((place, f"assert: {table!r}, expected a table [[assert]]"))
            continue
        reader = _Reader(place, table, domains)
        assertion = reader.assertion(lines[number])
        mistakes += reader.mistakes
        if assertion is not None and not reader.mistakes:
            found.append(assertion)
    return tuple(found), mistakes


def _lines(text: str, count: int) -> list[int]:
    """Return the lines on which the tables begin."""
    rows = enumerate(text.split("\n"), start=1)
    found = [number for number, row in rows if HEADER.match(row)]
    if len(found) == count:
        return found
    # Written otherwise, or within a text: the slow way is right whatever it is.
    return [line_of(text, ("assert", number)) for number in range(count)]


class _WrongError(ValueError):
    """A value that cannot be used."""


@dataclass(slots=True)
class _Reader:
    """Reads one table and collects what is wrong with it."""

    place: Path
    untrusted: Mapping[str, object]
    domains: Tables
    mistakes: list[tuple[Path, str]] = field(default_factory=list)

    def assertion(self, line: int) -> Assertion | None:
        for key in self.untrusted.keys() - set(KEYS):
            self._mistake(f"unknown key {key}, {expected(key, KEYS)}", key)
        for key in ("from", "expect"):
            if key not in self.untrusted:
                self._mistake(f"no {key}, expected {key} = TEXT")
        sources = tuple(self._each("from", self._source))
        targets = tuple(self._each("to", self._target)) or (Anywhere(),)
        service = self._service()
        expect = next(self._each("expect", self._expect), None)
        if expect is None:
            return None
        if isinstance(expect, OnlyThrough) and expect.domain in sources:
            self._mistake(f"expect: {expect.domain} is in from, expected another")
        return Assertion(sources, targets, service.proto, service.ports, expect, line)

    def _mistake(self, text: str, *key: str) -> None:
        self.mistakes.append(((*self.place, *key), f"assert: {text}"))

    def _each(self, key: str, read: Callable[[str], T]) -> Iterator[T]:
        """Yield what the words of a key mean, a text or a list of texts."""
        value = self.untrusted.get(key, [])
        words = value if isinstance(value, list) else [value]
        if key in self.untrusted and not words:
            self._mistake(f"{key}: names nothing, expected at least one", key)
        for word in words:
            if not isinstance(word, str):
                self._mistake(f"{key}: {word!r}, expected text", key)
                continue
            try:
                yield read(word)
            except (_WrongError, RuleError) as error:
                what = str(error).removeprefix("dsthost ")
                self._mistake(f"{key}: {what}", key)

    def _source(self, word: str) -> str:
        name = self._domain(word)
        if self.domains[name].get("personality") == "netvm":
            raise _WrongError(
                f"{name}: no rules stand before a NetVM, expected a domain behind one"
            )
        return name

    def _target(self, word: str) -> Destination | Home:
        if word in self.domains:
            return Home(word)
        if OUTSIDE.search(word) is None:
            raise _WrongError(
                f"{word}: no such domain, {expected(word, self.domains)} "
                "(or an address, a prefix, a host name)"
            )
        pairs = [("action", "accept"), ("dsthost", word)]
        return read_rule(pairs, ("action", "dsthost")).destination

    def _service(self) -> Rule:
        """Return proto and ports as a rule that has them."""
        pairs = [("action", "accept")]
        for key, option in (("proto", "proto"), ("ports", "dstports")):
            value = self.untrusted.get(key)
            if isinstance(value, str) or type(value) is int:
                pairs.append((option, str(value)))
            elif value is not None:
                self._mistake(f"{key}: {value!r}, expected text", key)
        if len(pairs) > 1 and pairs[1][0] != "proto":
            self._mistake("ports: only with proto, expected tcp or udp", "ports")
            return read_rule(pairs[:1], ("action",))
        try:
            return read_rule(pairs, ("action", "proto", "dstports"))
        except RuleError as error:
            what = str(error).replace("dstports", "ports")
            self._mistake(what, "proto" if what.startswith("proto") else "ports")
            return read_rule(pairs[:1], ("action",))

    def _expect(self, word: str) -> Expect:
        if word == "reach":
            return Reach()
        if word == "blocked":
            return Blocked()
        if not word.startswith(THROUGH):
            raise _WrongError(f'"{word}", {expected(word, EXPECT)}')
        name = self._domain(word.removeprefix(THROUGH))
        if "personality" not in self.domains[name]:
            raise _WrongError(
                f"{name} provides no network, expected a domain with a personality"
            )
        return OnlyThrough(name)

    def _domain(self, word: str) -> str:
        if word in self.domains:
            return word
        raise _WrongError(f"{word}: no such domain, {expected(word, self.domains)}")

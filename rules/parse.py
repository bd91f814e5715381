# SPDX-License-Identifier: GPL-2.0-or-later
"""Text to rules: one vocabulary, read in the three forms it travels in.

The Admin API line (``qubes/firewall.py``), the QubesDB value
(``doc/vm-interface.rst``) and the words of the ``qvm-firewall`` command.
Stricter than Qubes: ``docs/reference/rule-language.md`` lists each difference.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

from rules.model import (
    Action,
    Anywhere,
    ClientPolicy,
    Family,
    Name,
    Network,
    Policy,
    Proto,
    Refused,
    Rule,
    RuleError,
    SpecialTarget,
    shown,
)
from rules.model import family as family_of
from rules.options import DESTINATIONS, Pair, read_number, read_rule, read_word

_POSITIONS = ("action", "dsthost", "proto", "dstports", "icmptype")
_QDB_KEYS = (*_POSITIONS, "dst4", "dst6", "specialtarget")
_WORD_KEYS = (*_QDB_KEYS, "expire", "comment")
_API_KEYS = (*_WORD_KEYS, "dstname")
# Where a host stands by its place, whoever writes one of these means no host.
_NO_HOSTS = {"all", "any", *(w.value for w in (*Action, *Proto, *SpecialTarget))}
_RULE_KEY = re.compile(r"[0-9]{4}|[1-9][0-9]{4,8}")


def parse_api(untrusted_line: str) -> Rule:
    """Read one line of ``admin.vm.firewall.Get`` or ``.Set``, without its newline.

    Raise `RuleError` for anything else.
    """
    return _with_proto(read_rule(_pairs(_split(untrusted_line)), _API_KEYS))


def parse_words(untrusted_words: Sequence[str], *, now: int) -> Rule:
    """Read the words of ``qvm-firewall VM add`` (its man page, "RULE").

    A word without ``=`` takes the first free one of action, dsthost, proto,
    dstports, icmptype; ``drop tcp`` and the like are refused, lest they be about
    a host called tcp.  ``expire=+N`` counts seconds from ``now``, which is in
    seconds since the Unix epoch.  Raise `RuleError` for anything else.
    """
    return _with_proto(read_rule(_placed(untrusted_words, now), _WORD_KEYS))


def parse_text(untrusted_text: str, *, now: int) -> Rule:
    """Read a rule of a policy file: `parse_words`, one space between two words.

    ``comment=`` comes last and holds the rest, as in an Admin API line.
    """
    words = _split(untrusted_text)
    if untrusted_text and "" in words:
        raise RuleError(f"{shown(untrusted_text)}: a space too many")
    return parse_words(words, now=now)


def parse_value(untrusted_value: bytes, family: Family) -> Rule:
    """Read one value of ``/qubes-firewall/IP/NNNN`` of an IP of this family.

    Raise `RuleError` for anything else, other encodings than ASCII included.
    """
    try:
        untrusted_text = untrusted_value.decode("ascii")
    except UnicodeDecodeError:
        quoted = shown(untrusted_value.decode("latin-1"))
        raise RuleError(f"{quoted}: expected ASCII") from None
    rule = read_rule(_pairs(untrusted_text.split(" ")), _QDB_KEYS)
    match rule.destination:
        case Network(prefix) if family_of(prefix) is not family:
            raise RuleError(f"{prefix}: expected a destination of {family.name}")
        case Anywhere() | Network() | Name():
            return rule


# A list is read again whenever one of its rules changes.
_remembered_value = lru_cache(maxsize=16384)(parse_value)


def parse_list(untrusted_values: Mapping[str, bytes], family: Family) -> ClientPolicy:
    """Read a client's list: what is under ``/qubes-firewall/IP/``, by last name.

    Rules are ordered by number and numbers may be missing.  What cannot be read
    makes the whole list `Refused`.  No keys at all is an empty list.
    """
    if not untrusted_values:
        return Policy(())
    try:
        rules = tuple(_numbered(untrusted_values, family))
        return Policy(rules, _default(untrusted_values))
    except RuleError as error:
        return Refused(str(error))


def _numbered(untrusted_values: Mapping[str, bytes], family: Family) -> Iterator[Rule]:
    keys = sorted(untrusted_values.keys() - {"policy"})
    if not all(map(_RULE_KEY.fullmatch, keys)):
        untrusted_key = next(key for key in keys if not _RULE_KEY.fullmatch(key))
        raise RuleError(f"key {shown(untrusted_key)}: expected policy or 0000-9999")
    for key in sorted(keys, key=int):
        try:
            yield _remembered_value(untrusted_values[key], family)
        except RuleError as error:
            raise RuleError(f"rule {key}: {error}") from None


def _default(untrusted_values: Mapping[str, bytes]) -> Action:
    if "policy" not in untrusted_values:
        raise RuleError("policy: missing")
    return read_word(Action, "policy", untrusted_values["policy"].decode("latin-1"))


def _split(untrusted_line: str) -> list[str]:
    """Cut at each space; a comment is last and keeps its own."""
    head, found, comment = f" {untrusted_line}".partition(" comment=")
    words = head[1:].split(" ")
    return [*words, found[1:] + comment] if comment else words


def _pairs(untrusted_words: Iterable[str]) -> Iterator[Pair]:
    for untrusted_word in untrusted_words:
        key, equals, value = untrusted_word.partition("=")
        if not equals:
            raise RuleError(f"{shown(untrusted_word)}: expected key=value")
        yield key, value


def _placed(untrusted_words: Iterable[str], now: int) -> Iterator[Pair]:
    free = list(_POSITIONS)
    for untrusted_word in untrusted_words:
        key, equals, value = untrusted_word.partition("=")
        if not equals:
            if not free:
                raise RuleError(f"{shown(untrusted_word)}: expected key=value")
            key, value = free[0], untrusted_word
            if key == "dsthost" and value in _NO_HOSTS:
                raise RuleError(
                    f"{shown(value)}: expected a host here, or key=value; "
                    "no dsthost is any host"
                )
        if key == "expire" and value.startswith("+"):
            value = str(now + read_number(key, value[1:]))
        taken = {"dsthost" if key in DESTINATIONS else key}
        if key == "proto":
            taken.add("dstports" if value == Proto.ICMP.value else "icmptype")
        free = [position for position in free if position not in taken]
        yield key, value


def _with_proto(rule: Rule) -> Rule:
    if rule.ports is not None and rule.proto is None:
        raise RuleError("dstports: only with proto=tcp or proto=udp")
    return rule

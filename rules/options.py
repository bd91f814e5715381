# SPDX-License-Identifier: GPL-2.0-or-later
"""The options of a rule: what each ``key=value`` may hold.

Source: ``qubes/firewall.py``.  Numbers are plain decimal: ``int()`` alone would
also take ``8_0``, ``+80``, `` 80`` and ``080``.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from enum import Enum
from ipaddress import IPv4Network, IPv6Network
from typing import TypeVar

from rules.model import (
    Action,
    AddressRange,
    Anywhere,
    Destination,
    Name,
    Network,
    Ports,
    Proto,
    Rule,
    RuleError,
    SpecialTarget,
    shown,
)

Pair = tuple[str, str]
Value = TypeVar("Value")
Word = TypeVar("Word", bound=Enum)

DESTINATIONS = ("dsthost", "dst4", "dst6", "dstname")
"""The keys of which a rule has at most one."""

_NUMBER = "(?:0|[1-9][0-9]{0,11})"
_PORTS = re.compile(rf"({_NUMBER})(?:-({_NUMBER}))?")
_IPV4 = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?:/(?:0|[1-9][0-9]?))?")
_IPV6 = re.compile(r"(?=.*:)[0-9A-Fa-f:.]{2,45}(?:/(?:0|[1-9][0-9]{0,2}))?")


def read_rule(untrusted_pairs: Iterable[Pair], keys: Collection[str]) -> Rule:
    """Read a rule from pairs of key and value, each key in ``keys`` and given once.

    Raise `RuleError` that names the offending text.
    """
    options = _once(untrusted_pairs, keys)
    if "action" not in options:
        raise RuleError("action: missing")
    return Rule(
        action=read_word(Action, "action", options["action"]),
        destination=_destination(options),
        proto=_optional(options, "proto", lambda k, v: read_word(Proto, k, v)),
        special=_optional(
            options, "specialtarget", lambda k, v: read_word(SpecialTarget, k, v)
        ),
        ports=_optional(options, "dstports", _ports),
        icmp_type=_optional(options, "icmptype", read_number),
        expire=_optional(options, "expire", read_number),
        comment=options.get("comment"),
    )


def read_word(words: type[Word], key: str, untrusted_value: str) -> Word:
    """Read one of a closed set of words, or raise `RuleError`."""
    try:
        return words(untrusted_value)
    except ValueError:
        expected = " or ".join(word.value for word in words)
        raise RuleError(
            f"{key} {shown(untrusted_value)}: expected {expected}"
        ) from None


def read_number(key: str, untrusted_value: str) -> int:
    """Read a decimal number without sign or leading zeros, or raise `RuleError`."""
    if not re.fullmatch(_NUMBER, untrusted_value):
        raise RuleError(f"{key} {shown(untrusted_value)}: expected a decimal number")
    return int(untrusted_value)


def _once(untrusted_pairs: Iterable[Pair], keys: Collection[str]) -> Mapping[str, str]:
    options: dict[str, str] = {}
    for key, value in untrusted_pairs:
        if key not in keys:
            raise RuleError(f"option {shown(key)}: expected one of {', '.join(keys)}")
        same = DESTINATIONS if key in DESTINATIONS else (key,)
        if any(other in options for other in same):
            raise RuleError(f"{key} {shown(value)}: expected {same[0]} only once")
        options[key] = value
    return options


def _optional(
    options: Mapping[str, str], key: str, read: Callable[[str, str], Value]
) -> Value | None:
    return read(key, options[key]) if key in options else None


def _ports(key: str, untrusted_value: str) -> Ports:
    found = _PORTS.fullmatch(untrusted_value)
    if not found:
        raise RuleError(f"{key} {shown(untrusted_value)}: expected 80 or 80-90")
    return Ports(int(found[1]), int(found[2] or found[1]))


def _destination(options: Mapping[str, str]) -> Destination:
    for key in DESTINATIONS:
        if key in options:
            return _host(key, options[key])
    return Anywhere()


def _host(key: str, untrusted_host: str) -> Destination:
    """Read an address or a prefix and, where the key allows it, a host name."""
    prefix: AddressRange | None = None
    try:
        if key != "dst6" and _IPV4.fullmatch(untrusted_host):
            prefix = IPv4Network(untrusted_host)
        elif key != "dst4" and _IPV6.fullmatch(untrusted_host):
            prefix = IPv6Network(untrusted_host)
    except ValueError as error:
        raise RuleError(f"{key} {shown(untrusted_host)}: {error}") from None
    if prefix is not None:
        return Network(prefix)
    if key in ("dst4", "dst6"):
        raise RuleError(
            f"{key} {shown(untrusted_host)}: expected an IPv{key[3]} prefix"
        )
    return Name(untrusted_host)

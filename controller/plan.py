# SPDX-License-Identifier: GPL-2.0-or-later
"""The difference of two policies, in words."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import Enum

from controller.amend import rule_text
from controller.domains import (
    ACCEPT_ALL,
    Domain,
    Domains,
    HostUplink,
    LabUplink,
    Nic,
    Uplink,
)


class Sign(Enum):
    """Whether a change adds, removes or replaces something."""

    ADD = "+"
    REMOVE = "-"
    CHANGE = "~"


@dataclass(frozen=True, slots=True)
class Change:
    """One line of a plan."""

    sign: Sign
    domain: str
    text: str


def plan(
    running: Domains | None, wanted: Domains, outdated: Collection[str] = ()
) -> tuple[Change, ...]:
    """Return what ``apply`` would change; nothing runs when ``running`` is None.

    ``outdated`` are the domains that were given what their files no longer hold.
    """
    return tuple(_changes(running or Domains({}), wanted, outdated))


def _changes(old: Domains, new: Domains, outdated: Collection[str]) -> Iterator[Change]:
    for domain in old:
        if domain.name not in new.by_name:
            yield Change(Sign.REMOVE, domain.name, _kind(domain))
    for domain in new:
        before = old.by_name.get(domain.name)
        if before is None:
            yield Change(Sign.ADD, domain.name, _kind(domain))
            before = Domain(domain.name, domain.qid)
        else:
            yield from _settings(before, domain)
            if domain.name in outdated and before.files == domain.files:
                text = "a file of it holds something else"
                yield Change(Sign.CHANGE, domain.name, text)
        yield from _rules(before, domain)


def _kind(domain: Domain) -> str:
    kind = "AppVM" if domain.personality is None else domain.personality.value
    return f"{kind} {domain.label.value}, {', '.join(_links(domain))}"


def _links(domain: Domain) -> Iterator[str]:
    if domain.uplink is not None:
        yield f"uplink {_uplink(domain.uplink)}"
    else:
        yield f"netvm {domain.netvm or 'none'}"
    if not domain.ipv6:
        yield "no IPv6"


def _settings(old: Domain, new: Domain) -> Iterator[Change]:
    pairs = (
        ("label", old.label.value, new.label.value),
        ("personality", _personality(old), _personality(new)),
        ("netvm", old.netvm or "none", new.netvm or "none"),
        ("uplink", _uplink(old.uplink), _uplink(new.uplink)),
        ("ipv6", str(old.ipv6).lower(), str(new.ipv6).lower()),
        ("address", str(old.ip4), str(new.ip4)),
        *_given(old, new),
    )
    for what, before, after in pairs:
        if before != after:
            yield Change(Sign.CHANGE, new.name, f"{what} {before} -> {after}")


def _given(old: Domain, new: Domain) -> Iterator[tuple[str, str, str]]:
    """Yield what the personality is given, by key, before and after."""
    before, after = (
        {
            **{key: str(file) for key, file in domain.files},
            **dict.fromkeys(domain.switches, "true"),
            **dict(domain.texts),
        }
        for domain in (old, new)
    )
    for key in sorted(before.keys() | after.keys()):
        absent = "false" if key in old.switches | new.switches else "none"
        yield key, before.get(key, absent), after.get(key, absent)


def _personality(domain: Domain) -> str:
    return "none" if domain.personality is None else domain.personality.value


def _uplink(uplink: Uplink | None) -> str:
    match uplink:
        case HostUplink():
            return "host"
        case LabUplink():
            return "lab"
        case Nic(name):
            return name
        case None:
            return "none"


def _rules(old: Domain, new: Domain) -> Iterator[Change]:
    if old.policy == new.policy:
        return
    before = [rule_text(rule) for rule in old.policy.rules]
    after = [rule_text(rule) for rule in new.policy.rules]
    if new.policy == ACCEPT_ALL:
        yield Change(Sign.CHANGE, new.name, "rules: accepts everything")
    elif not after:
        yield Change(Sign.CHANGE, new.name, "rules: denies everything")
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    for _, first, last, start, end in matcher.get_opcodes():
        if before[first:last] == after[start:end]:
            continue
        for number in range(first, last):
            text = f"rule {number}: {before[number]}"
            yield Change(Sign.REMOVE, new.name, text)
        for number in range(start, end):
            yield Change(Sign.ADD, new.name, f"rule {number}: {after[number]}")

# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``prefs`` and ``firewall`` ask for, as a new text of the policy file."""

from collections.abc import Sequence

from controller import edit
from controller.domains import Domain, Domains
from rules.emit import api_line
from rules.model import Rule, RuleError
from rules.parse import parse_words

NO_NETVM = ("", "none")


class AmendError(ValueError):
    """A request that cannot be carried out, in words for the user."""


def rule_text(rule: Rule) -> str:
    """Return ``rule`` as the policy file has it, which `parse_text` reads."""
    return api_line(rule).removeprefix("action=")


def relinked(text: str, domains: Domains, name: str, untrusted_netvm: str) -> str:
    """Return ``text`` with another netvm for ``name``.

    ``none`` and the empty text mean no netvm, as for ``qvm-prefs``.  Raise
    `UnknownDomainError`, `AmendError` or `EditError`.
    """
    _in_file(domains.named(name))
    if untrusted_netvm in NO_NETVM:
        return edit.set_netvm(text, name, None)
    return edit.set_netvm(text, name, domains.named(untrusted_netvm).name)


def changed(  # noqa: PLR0913 (the words of `ravelin firewall`)
    text: str,
    domain: Domain,
    untrusted_action: str,
    untrusted_words: Sequence[str],
    *,
    number: int | None,
    now: int,
) -> str:
    """Return ``text`` after ``add``, ``del`` or ``reset``."""
    if untrusted_action == "add":
        return with_rule(text, domain, untrusted_words, before=number, now=now)
    if untrusted_action == "del":
        return without_rule(text, domain, untrusted_words, number=number, now=now)
    if untrusted_action == "reset":
        return without_rules(text, domain)
    raise AmendError(f"firewall: {untrusted_action}: unknown action")


def with_rule(
    text: str,
    domain: Domain,
    untrusted_words: Sequence[str],
    *,
    before: int | None,
    now: int,
) -> str:
    """Return ``text`` with one more rule, before rule ``before`` or last."""
    _in_file(domain)
    count = len(domain.policy.rules)
    index = count if before is None else before
    if index > count:
        raise AmendError(
            f"{domain.name}: no place before rule {index}, expected 0 to {count}"
        )
    return edit.insert_rule(
        text, domain.name, index, rule_text(_rule(untrusted_words, now))
    )


def without_rule(
    text: str,
    domain: Domain,
    untrusted_words: Sequence[str],
    *,
    number: int | None,
    now: int,
) -> str:
    """Return ``text`` without rule ``number``, or without the first equal rule."""
    _in_file(domain)
    rules = domain.policy.rules
    if number is None:
        wanted = _rule(untrusted_words, now)
        if wanted not in rules:
            raise AmendError(
                f"{domain.name}: no such rule: {rule_text(wanted)} "
                f"(`ravelin firewall {domain.name} list` shows them)"
            )
        number = rules.index(wanted)
    if number >= len(rules):
        have = f"0 to {len(rules) - 1}" if rules else "none, the list is empty"
        raise AmendError(f"{domain.name}: no rule {number}, expected {have}")
    return edit.delete_rule(text, domain.name, number)


def without_rules(text: str, domain: Domain) -> str:
    """Return ``text`` with the default list for ``domain``: accept everything."""
    _in_file(domain)
    return edit.reset_rules(text, domain.name)


def _in_file(domain: Domain) -> None:
    if domain.disposable:
        raise AmendError(
            f"{domain.name}: a disposable is not in the policy file, "
            "change the domain it was made from"
        )


def _rule(untrusted_words: Sequence[str], now: int) -> Rule:
    try:
        return parse_words(untrusted_words, now=now)
    except RuleError as error:
        raise AmendError(f"{' '.join(untrusted_words)}: {error}") from None

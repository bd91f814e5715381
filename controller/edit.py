# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes to the user's policy file that keep its comments and its layout.

Each function takes the text of a valid policy file that has the domain, and
returns the new text.  The result is read back by `tomllib`: a text that does
not say exactly what it should raises `EditError`.
"""

import re
import tomllib
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import cast

import tomlkit
from tomlkit.exceptions import TOMLKitError

Table = MutableMapping[str, object]


class EditError(ValueError):
    """The text cannot be changed in place; nothing was changed."""


def set_netvm(text: str, domain: str, netvm: str | None) -> str:
    """Link ``domain`` to ``netvm``, or to none."""

    def change(table: Table) -> None:
        if netvm is not None:
            table["netvm"] = netvm
        else:
            table.pop("netvm", None)

    return _changed(text, domain, change)


def insert_rule(text: str, domain: str, index: int, rule: str) -> str:
    """Put ``rule`` before rule ``index`` of ``domain``."""
    return _changed(text, domain, lambda table: _rules(table).insert(index, rule))


def delete_rule(text: str, domain: str, index: int) -> str:
    """Take out rule ``index`` of ``domain``."""

    def change(table: Table) -> None:
        # tomlkit 0.11 stumbles over ["a","b"] after it has taken "a" out.
        with suppress(AttributeError):
            del _rules(table)[index]

    return _changed(text, domain, change)


def reset_rules(text: str, domain: str) -> str:
    """Take the key ``firewall`` out: ``domain`` accepts everything again."""

    def change(table: Table) -> None:
        table.pop("firewall", None)

    return _changed(text, domain, change)


def _rules(table: Table) -> list[object]:
    """Return the list to change; without one it is that of Qubes, accept all."""
    if "firewall" not in table:
        rules = tomlkit.array()
        rules.append("accept")
        table["firewall"] = rules.multiline(multiline=True)
    return cast(list[object], table["firewall"])


def _changed(text: str, domain: str, change: Callable[[Table], None]) -> str:
    meant = tomllib.loads(text)
    change(meant["domains"][domain])
    start, end = _section(text, domain)
    with suppress(EditError):  # such as a table that goes on elsewhere
        edited = text[:start] + _edited(text[start:end], domain, change) + text[end:]
        if _says(edited, meant):
            return edited
    edited = _edited(text, domain, change)
    if not _says(edited, meant):
        raise EditError(f"{domain}: cannot change the policy file, edit it by hand")
    return edited


def _section(text: str, domain: str) -> tuple[int, int]:
    """Return where the table of a domain seems to begin and to end.

    tomlkit takes 4 s for the tables of 150 domains, and 16 for twice as many.
    """
    header = rf"(?m)^[ \t]*\[[ \t]*domains[ \t]*\.[ \t]*([\"']?){domain}\1[ \t]*\]"
    found = re.search(header, text)
    if found is None:
        return 0, len(text)
    after = re.compile(r"(?m)^[ \t]*\[").search(text, found.end())
    return found.start(), len(text) if after is None else after.start()


def _edited(text: str, domain: str, change: Callable[[Table], None]) -> str:
    try:
        document = tomlkit.parse(text)
        domains = cast(MutableMapping[str, Table], document["domains"])
        change(domains[domain])
        return tomlkit.dumps(document)
    except (TOMLKitError, KeyError) as error:
        raise EditError(f"{domain}: cannot change the policy file, {error}") from error


def _says(text: str, meant: Mapping[str, object]) -> bool:
    try:
        return tomllib.loads(text) == meant
    except tomllib.TOMLDecodeError:
        return False

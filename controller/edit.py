# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes to the user's policy file that keep its comments and its layout.

Each function takes the text of a valid policy file that has the domain, and
returns the new text.  The result is read back by `tomllib`: a text that does
not say exactly what it should raises `EditError`.
"""

import tomllib
from collections.abc import Callable, MutableMapping
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
    try:
        document = tomlkit.parse(text)
        domains = cast(MutableMapping[str, Table], document["domains"])
        change(domains[domain])
        edited = tomlkit.dumps(document)
        kept = tomllib.loads(edited) == meant
    except (TOMLKitError, tomllib.TOMLDecodeError) as error:
        raise EditError(f"{domain}: cannot change the policy file, {error}") from error
    if not kept:
        raise EditError(f"{domain}: cannot change the policy file, edit it by hand")
    return edited

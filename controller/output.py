# SPDX-License-Identifier: GPL-2.0-or-later
"""Answers as lines for people; their data is that of `controller.report`."""

from collections.abc import Iterator, Mapping, Sequence

from controller.admin import Json
from controller.table import coloured, printable, table

Row = Mapping[str, Json]
Columns = Sequence[tuple[str, str]]

STATUS: Columns = (
    ("NAME", "name"),
    ("PERSONALITY", "personality"),
    ("NETVM", "netvm"),
    ("IP", "ip"),
    ("IP6", "ip6"),
    ("STATE", "state"),
    ("RECEIVED", "received"),
    ("SENT", "sent"),
    ("PROBLEM", "problem"),
)
# The columns of `qvm-firewall VM list`.
RULES: Columns = (
    ("NO", "number"),
    ("ACTION", "action"),
    ("HOST", "host"),
    ("PROTOCOL", "proto"),
    ("PORT(S)", "ports"),
    ("SPECIAL TARGET", "target"),
    ("ICMP TYPE", "icmptype"),
    ("EXPIRE", "expires"),
    ("COMMENT", "comment"),
)
HOPS: Columns = (
    ("AT", "domain"),
    ("VERDICT", "verdict"),
    ("RULE", "rule"),
    ("WHY", "reason"),
)
CIRCUITS: Columns = (
    ("DOMAIN", "domain"),
    ("GATEWAY", "gateway"),
    ("CIRCUIT", "circuit"),
    ("RELAYS", "relays"),
)
LOG: Columns = (("TIME", "time"), ("DOMAIN", "domain"), ("EVENT", "text"))

THOUSAND = 1000
VERDICTS = {"accept": "green", "deny": "red", "unknown": "yellow"}
SIGNS = {"+": "green", "-": "red", "~": "yellow"}


def rows(data: Json, key: str) -> list[Row]:
    """Return the list of tables under ``key``, empty when there is none."""
    found = data.get(key) if isinstance(data, Mapping) else None
    if not isinstance(found, Sequence):
        return []
    return [row for row in found if isinstance(row, Mapping)]


def words(data: Json, key: str) -> list[str]:
    """Return the list of texts under ``key``, empty when there is none."""
    found = data.get(key) if isinstance(data, Mapping) else None
    if not isinstance(found, Sequence) or isinstance(found, str):
        return []
    return [each for each in found if isinstance(each, str)]


def cell(row: Row, key: str) -> str:
    """Return one value as text, ``-`` for none."""
    value = row.get(key)
    return "-" if value is None else str(value)


def names(data: Json) -> list[str]:
    """Return the names of all domains."""
    return [cell(row, "name") for row in rows(data, "domains")]


def status(data: Json, *, colour: bool) -> list[str]:
    """Return the tree of domains."""
    found = rows(data, "domains")
    depths = [row.get("depth") for row in found]
    indented = [
        {
            **row,
            "name": "  " * (depth if isinstance(depth, int) else 0) + str(name),
            "state": _state(row),
            "received": _amount(row, "received", "receiving"),
            "sent": _amount(row, "sent", "sending"),
        }
        for row, depth in zip(found, depths, strict=True)
        for name in (row.get("name"),)
    ]
    labels = [cell(row, "label") for row in found]
    return lined(STATUS, indented, labels if colour else None)


def _amount(row: Row, total: str, rate: str) -> str | None:
    """Return bytes so far, and bytes per second if they are known and not none."""
    amount, speed = row.get(total), row.get(rate)
    if not isinstance(amount, int):
        return None
    so_far = _bytes(amount)
    return (
        f"{so_far}, {_bytes(speed)}/s" if isinstance(speed, int) and speed else so_far
    )


def _bytes(number: int) -> str:
    value = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if value < THOUSAND:
            return f"{value:.3g} {unit}"
        value /= THOUSAND
    return f"{value:.3g} TB"


def _state(row: Row) -> str:
    """Return the state, with the few words that a personality adds to it."""
    report = row.get("report")
    words = report.get("summary") if isinstance(report, Mapping) else None
    return f"{cell(row, 'state')}, {words}" if words else cell(row, "state")


def changes(data: Json, *, colour: bool) -> list[str]:
    """Return a plan, a line for each change, and what it comes to in packets."""

    def lines() -> Iterator[tuple[str, str]]:
        for row in rows(data, "changes"):
            sign = cell(row, "sign")
            yield sign, f"{sign} {cell(row, 'domain')}: {cell(row, 'text')}"
        for row in rows(data, "packets"):
            yield cell(row, "sign"), f"  {cell(row, 'domain')} {cell(row, 'text')}"
        for row in rows(data, "idle"):
            yield cell(row, "sign"), f"  {cell(row, 'domain')}: {cell(row, 'text')}"
        for text in words(data, "failing"):
            yield "-", f"not kept: {text}"
        for text in words(data, "unjudged"):
            yield "~", f"not judged yet: {text}"
        seconds = data.get("confirm") if isinstance(data, Mapping) else None
        if seconds is not None:
            yield "~", f"rolled back in {seconds} s unless you give `ravelin confirm`"

    shown = ((sign, printable(line)) for sign, line in lines())
    return [
        coloured(line, SIGNS[sign]) if colour and sign in SIGNS else line
        for sign, line in shown
    ]


def rules(data: Json, *, colour: bool) -> list[str]:
    """Return the rules of a domain as ``qvm-firewall`` lists them."""
    found = rows(data, "rules")
    colours = [SIGNS["+" if row.get("action") == "accept" else "-"] for row in found]
    return lined(RULES, found, colours if colour else None)


def raw_rules(data: Json) -> list[str]:
    """Return the rules as lines of the Admin API."""
    return [cell(row, "raw") for row in rows(data, "rules")]


def log(data: Json) -> list[str]:
    """Return the journal, oldest entry first."""
    return lined(LOG, rows(data, "events"), None)


def tor(data: Json) -> list[str]:
    """Return the circuits of clients of Tor, or who has other ones now."""
    if isinstance(data, Mapping) and "client" in data:
        of_others = cell(data, "client") != cell(data, "domain")
        all_behind = " (and all behind it)" if of_others else ""
        return [f"{cell(data, 'client')}{all_behind}: other circuits from now on"]
    found = lined(CIRCUITS, rows(data, "circuits"), None)
    if isinstance(data, Mapping) and isinstance(unsure := data["incomplete"], Sequence):
        found += [f"{name}: perhaps not all, a client hides some" for name in unsure]
    return found


def settings(data: Json, key: str | None) -> list[str]:
    """Return one setting, or all of them with their names."""
    tree = data if isinstance(data, Mapping) else {}
    if key is not None:
        return [cell(tree, key)]
    width = max(map(len, tree), default=0)
    return [f"{name.ljust(width)}  {cell(tree, name)}" for name in tree]


def lined(
    columns: Columns, found: Sequence[Row], colours: Sequence[str] | None
) -> list[str]:
    """Return rows as a table with these columns."""
    cells = [[cell(row, key) for _, key in columns] for row in found]
    return table([head for head, _ in columns], cells, colours)

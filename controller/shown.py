# SPDX-License-Identifier: GPL-2.0-or-later
"""What was proved, and what kernels do, as lines for people."""

from collections.abc import Iterator, Mapping

from controller.admin import Exit, Json
from controller.output import HOPS, VERDICTS, Columns, Row, cell, lined, rows, words
from controller.table import coloured, printable

# As `proof.claims.Status` has them, without all that a proof takes to import.
PROVED, REFUTED, POSSIBLE, UNKNOWN = STATUSES = (
    *("proved", "refuted"),
    *("possible", "unknown"),
)

CLAIMS: Columns = (
    ("ANSWER", "status"),
    ("IP", "version"),
    ("CLAIM", "claim"),
    ("SUCH AS", "packet"),
)
KERNELS: Columns = (
    ("IN THE KERNEL OF", "domain"),
    ("VERDICT", "verdict"),
    ("RULE", "rule"),
    ("OUT BY", "out"),
    ("WHY", "reason"),
)
_COLOURS = {
    PROVED: "green",
    REFUTED: "red",
    POSSIBLE: "yellow",
    UNKNOWN: "yellow",
    "sent": "green",
    "delivered": "green",
    "unsure": "yellow",
}
_LEADS = {
    REFUTED: "because",
    POSSIBLE: "it depends on",
    UNKNOWN: "because",
}


def verified(data: Json, *, colour: bool) -> list[str]:
    """Return every claim with its answer, and what is behind those that fail."""
    found = rows(data, "results")
    shown = [{**row, "status": cell(row, "status").upper()} for row in found]
    colours = [_COLOURS.get(cell(row, "status"), "yellow") for row in found]
    lines = lined(CLAIMS, shown, colours if colour else None)
    for row in found:
        if row.get("status") != PROVED:
            lines += _behind(row, colour=colour)
    assumed = (n for row in found if _is(row, PROVED) for n in words(row, "notes"))
    lines += [f"assuming: {note}" for note in dict.fromkeys(assumed)]
    return [*lines, total(data)]


def _is(row: Row, status: str) -> bool:
    return row.get("status") == status


def _behind(row: Row, *, colour: bool) -> Iterator[str]:
    """Yield the packet of an answer, its way, and what is to be known."""
    status = cell(row, "status")
    head = printable(f"{status.upper()}: {cell(row, 'claim')}")
    yield coloured(head, _COLOURS.get(status, "yellow")) if colour else head
    if row.get("packet") is not None:
        yield printable(f"  {cell(row, 'packet')}, into {cell(row, 'enters')}")
    yield from (f"  {line}" for line in kernels(rows(row, "hops"), colour=colour))
    for note in words(row, "notes"):
        yield printable(f"  {_LEADS.get(status, 'because')}: {note}")
    if row.get("replay") is not None:
        yield printable(f"  {cell(row, 'replay')}")


def total(data: Json) -> str:
    """Return how many claims there are, and what became of them."""
    found = rows(data, "results")
    counts = {s: sum(1 for row in found if _is(row, s)) for s in STATUSES}
    said = ", ".join(f"{n} {s}" for s, n in counts.items() if n)
    return f"{len(found)} claims: {said or 'none'}; {generations(data)}"


def generations(data: Json) -> str:
    """Return of which rules of each domain this was said."""
    found = data.get("generations") if isinstance(data, Mapping) else None
    known = found.items() if isinstance(found, Mapping) else ()
    return f"generation {', '.join(f'{name} {n}' for name, n in known) or 'unknown'}"


def verdict_of_all(data: Json) -> Exit:
    """Return 0 if all is proved, 1 if something is refuted, else 3."""
    found = rows(data, "results")
    if any(_is(row, REFUTED) for row in found):
        return Exit.DIFFERS
    proved = found and all(_is(row, PROVED) for row in found)
    return Exit.OK if proved else Exit.NOT_ENFORCED


def kernels(hops: list[Row], *, colour: bool) -> list[str]:
    """Return what each kernel on the way does with a packet."""
    colours = [_COLOURS.get(cell(hop, "verdict"), "red") for hop in hops]
    return lined(KERNELS, hops, colours if colour else None) if hops else []


def routes(data: Json, *, colour: bool) -> list[str]:
    """Return the hops towards each address of a destination."""

    def lines() -> Iterator[str]:
        asked = data.get("asked") if isinstance(data, Mapping) else None
        if isinstance(asked, Mapping):
            whom, host = cell(asked, "domain"), cell(asked, "host")
            yield printable(f"{whom} itself was asked for {host}")
        for route in rows(data, "routes"):
            verdict = cell(route, "verdict")
            yield printable(f"{cell(route, 'destination')}: {verdict}")
            hops = rows(route, "hops")
            colours = [VERDICTS.get(cell(hop, "verdict"), "yellow") for hop in hops]
            yield from lined(HOPS, hops, colours if colour else None)
            yield from kernels(rows(route, "kernels"), colour=colour)
            yield from _against(route, colour=colour)

    return list(lines())


def _against(route: Row, *, colour: bool) -> Iterator[str]:
    """Yield what is wrong between a policy and the kernels."""
    found = route.get("kernel_verdict")
    if route.get("differs"):
        text = f"DIFFERS: policy {cell(route, 'verdict')}, kernels {found}"
        yield coloured(text, "red") if colour else text
    elif found == "unknown":
        why = printable(cell(route, "missing"))
        text = f"what the kernels do is not known: {why}"
        yield coloured(text, "yellow") if colour else text


def standing(data: Json, *, colour: bool) -> Iterator[str]:
    """Yield what is known by the last proof, and what is on trial."""
    tree = data if isinstance(data, Mapping) else {}
    proof = tree.get("proof")
    if isinstance(proof, Mapping):
        text = printable(_standing(proof))
        answer = _COLOURS.get(cell(proof, "state"), "yellow")
        yield coloured(text, answer) if colour else text
    if tree.get("confirm") is not None:
        seconds = cell(tree, "confirm")
        yield f"rolled back in {seconds} s unless you give `ravelin confirm`"


def _standing(proof: Row) -> str:
    text = cell(proof, "text")
    if proof.get("age") is None:
        return text
    comma = "" if text == PROVED else ","
    again = "; something has changed since" if proof.get("changed") else ""
    return f"{text}{comma} {cell(proof, 'age')} s ago, {generations(proof)}{again}"

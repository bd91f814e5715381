# SPDX-License-Identifier: GPL-2.0-or-later
"""A picture of what was proved: domains, their links, and the way of what leaks."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

from controller.admin import Json
from controller.domain import Label
from controller.output import cell, rows, words
from controller.shown import POSSIBLE, PROVED, REFUTED, UNKNOWN

PROGRAM = "dot"  # of Graphviz
OUTSIDE = "outside"
_LABELS = {
    Label.RED.value: "#cc0000",
    Label.ORANGE.value: "#f57900",
    Label.YELLOW.value: "#edd400",
    Label.GREEN.value: "#73d216",
    Label.GRAY.value: "#888a85",
    Label.BLUE.value: "#3465a4",
    Label.PURPLE.value: "#75507b",
    Label.BLACK.value: "#2e3436",
}
_ANSWERS = {
    PROVED: "#2e7d32",
    REFUTED: "#c62828",
    POSSIBLE: "#ef6c00",
    UNKNOWN: "#ef6c00",
}
_WORST = (REFUTED, POSSIBLE, UNKNOWN, PROVED)


def draw(data: Json, path: Path) -> None:
    """Write the picture as SVG; OSError says why it cannot be."""
    command = [PROGRAM, "-Tsvg", "-o", str(path)]
    try:
        done = subprocess.run(  # noqa: S603 (the words are ours, the path is the user's)
            command, input=dot(data), text=True, capture_output=True, check=False
        )
    except FileNotFoundError:
        raise OSError(
            f"{path}: not drawn, there is no {PROGRAM}; the package graphviz has it"
        ) from None
    if done.returncode:
        raise OSError(f"{path}: not drawn, {done.stderr.strip()}")


def dot(data: Json) -> str:
    """Return the picture in the language of Graphviz (dot(1))."""
    lines = [
        "digraph ravelin {",
        'rankdir=LR; bgcolor="white"; fontname="sans-serif";',
        'node [shape=box style="rounded,bold" fontname="sans-serif"];',
        'edge [fontname="sans-serif" fontsize=10];',
        f'{_quoted(OUTSIDE)} [shape=plaintext style=""];',
        *_domains(data),
        *_links(data),
        *_leaks(data),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _domains(data: Json) -> Iterator[str]:
    for row in rows(data, "domains"):
        name, kind = cell(row, "name"), row.get("personality")
        colour = _quoted(_LABELS.get(cell(row, "label"), "#000000"))
        text = _quoted(f"{name}\n{kind}" if kind else name)
        yield f"{_quoted(name)} [label={text} color={colour}];"


def _links(data: Json) -> Iterator[str]:
    """Yield each domain's link, in the colour of what was proved of the domain."""
    for row in rows(data, "domains"):
        name, netvm = cell(row, "name"), row.get("netvm")
        found = [r for r in rows(data, "results") if name in words(r, "domains")[:1]]
        counts = {s: sum(r.get("status") == s for r in found) for s in _WORST}
        worst = next((s for s in _WORST if counts[s]), UNKNOWN)
        said = ", ".join(f"{n} {s}" for s, n in counts.items() if n)
        if netvm is None and row.get("personality") is None:
            target, style = name, "style=dotted"
        else:
            target, style = (OUTSIDE if netvm is None else str(netvm)), "penwidth=2"
        yield _edge(name, target, f"{style} label={_quoted(said)}", worst)


def _leaks(data: Json) -> dict[str, None]:
    """Return the way of each packet that refutes something, once."""
    return dict.fromkeys(_refutations(data))


def _refutations(data: Json) -> Iterator[str]:
    for row in rows(data, "results"):
        hops = rows(row, "hops")
        if row.get("status") != REFUTED or not hops:
            continue
        client = next(iter(words(row, "domains")), OUTSIDE)
        ends = cell(hops[-1], "verdict") in ("sent", "delivered")
        stop = cell(hops[-1], "domain")
        label = f"{cell(row, 'packet')}\n{'passes' if ends else 'stops at'} {stop}"
        yield _edge(client, stop, f"style=dashed label={_quoted(label)}", "refuted")


def _edge(start: str, end: str, words_of_dot: str, status: str) -> str:
    colour = _quoted(_ANSWERS[status])
    more = f"color={colour} fontcolor={colour} {words_of_dot}"
    return f"{_quoted(start)} -> {_quoted(end)} [{more}];"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'

# SPDX-License-Identifier: GPL-2.0-or-later
"""What was measured, next to what was wanted; as JSON, and as the page made of it."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import groupby
from math import exp, log, sqrt
from pathlib import Path
from statistics import fmean, median, pstdev, quantiles

DOCS = Path(__file__).parents[2] / "docs" / "reference"

HEAD = """\
# Benchmarks

Written by `make bench` from `benchmarks.json`; do not edit.
Ratios compare rounds that took turns in one run; other figures are medians, and not
to be compared with those of another run.
"""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line.  ``goal`` is in words, ``met`` None where there is none."""

    part: str
    what: str
    value: float
    unit: str
    goal: str = ""
    met: bool | None = None
    note: str = ""

    def line(self) -> str:
        """Return it for a terminal."""
        goal = f"goal {self.goal}" if self.goal else ""
        said = {True: "met", False: "MISSED", None: ""}[self.met]
        value = f"{_short(self.value)} {self.unit}"
        return f"{self.what:<66} {value:>14}  {goal:<12} {said:<7} {self.note}".rstrip()


def at_most(  # noqa: PLR0917
    part: str, what: str, value: float, unit: str, limit: float, note: str = ""
) -> Figure:
    """Return a figure that should not be larger."""
    goal = f"≤ {limit:g} {unit}"
    return Figure(part, what, value, unit, goal, value <= limit, note)


def at_least(  # noqa: PLR0917
    part: str, what: str, value: float, unit: str, limit: float, note: str = ""
) -> Figure:
    """Return a figure that should not be smaller."""
    goal = f"≥ {limit:g} {unit}"
    return Figure(part, what, value, unit, goal, value >= limit, note)


def mean_ratio(pairs: Iterable[tuple[float, ...]]) -> tuple[float, float, float]:
    """Return the geometric mean of the ratios of pairs, and where it is; percent.

    That is with a confidence of 95 %, by the spread that these pairs have.
    """
    logs = [log(one / other) for one, other in pairs]
    error = 1.96 * pstdev(logs) / sqrt(max(1, len(logs) - 1))
    middle = fmean(logs)
    least, most = exp(middle - error), exp(middle + error)
    return 100 * exp(middle), 100 * least, 100 * most


def spread(values: Iterable[float]) -> str:
    """Return the 95th percentile and the maximum in words."""
    known = sorted(values)
    return f"p95 {_short(quantiles(known, n=20)[-1])}, max {_short(known[-1])}"


def middle(values: Iterable[float]) -> float:
    """Return the median."""
    return float(median(values))


def write(figures: list[Figure], run: str) -> None:
    """Write both files; parts that were not measured keep their figures and their run.

    ``run`` is its machine and day in words.
    """
    path = DOCS / "benchmarks.json"
    before = json.loads(path.read_text())
    runs = dict.fromkeys((figure.part for figure in figures), run)
    kept = [each for each in before["figures"] if each["part"] not in runs]
    found = kept + [asdict(figure) for figure in figures]
    data = {"runs": before["runs"] | runs, "figures": found}
    text = json.dumps(data, indent=1, ensure_ascii=False)
    path.write_text(text + "\n")
    (DOCS / "benchmarks.md").write_text(page(text))


def page(text: str) -> str:
    """Return the page that says what the JSON says."""
    data = json.loads(text)
    figures = [Figure(**each) for each in data["figures"]]
    lines = [HEAD]
    for part, group in groupby(figures, key=lambda figure: figure.part):
        lines += [f"## {part}\n", f"{data['runs'][part]}:\n"]
        lines += ["| | measured | goal | | |", "|---|--:|---|---|---|"]
        for f in group:
            said = {True: "met", False: "**missed**", None: ""}[f.met]
            value = f"{_short(f.value)} {f.unit}"
            lines.append(f"| {f.what} | {value} | {f.goal} | {said} | {f.note} |")
        lines.append("")
    return "\n".join(lines)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or not value else f"{value:.3g}"

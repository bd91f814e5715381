# SPDX-License-Identifier: GPL-2.0-or-later
"""A change on trial: it goes again unless somebody confirms it in time.

What was in force before is kept on disk, so a controller that ends meanwhile does
not leave in the policy file what nobody has confirmed.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from controller import durable

KEYS = ("file", "text")
KEPT = "before-trial.json"
REFUSED = "not-confirmed.toml"


@dataclass(frozen=True, slots=True)
class Before:
    """The policy file, and the text that was in force."""

    file: Path
    text: str


class Trial:
    """At most one change on trial; ``directory`` is for root alone.

    OSError or ValueError if what is kept there cannot be read.
    """

    def __init__(
        self, directory: Path, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._kept = directory / KEPT
        self._refused = directory / REFUSED
        self._clock = clock
        self._before = self._read()
        self.deadline: float | None = None
        """When it is to be rolled back, by the clock given; None: no trial runs."""

    @property
    def before(self) -> Before | None:
        """What was in force before the change, None when nothing is on trial."""
        return self._before

    def left(self) -> float | None:
        """Return the seconds left to confirm, None when nothing waits for that."""
        if self.deadline is None:
            return None
        return max(0.0, self.deadline - self._clock())

    def begin(self, before: Before) -> None:
        """Keep what is in force, before anything changes."""
        tree = zip(KEYS, (str(before.file), before.text), strict=True)
        durable.replace(self._kept, json.dumps(dict(tree)))
        self._before = before

    def run(self, seconds: float) -> None:
        """Wait that long for a confirmation, from now on."""
        self.deadline = self._clock() + seconds

    def end(self) -> None:
        """Let the change stay."""
        self._kept.unlink(missing_ok=True)
        self._before = self.deadline = None

    def put_back(self) -> Path | None:
        """End the trial with the policy file as it was before.

        Return where the text is now that nobody has confirmed, None if there was
        no trial.
        """
        before = self._before
        if before is None:
            return None
        self.deadline = None
        if before.file.exists():
            text = before.file.read_bytes().decode(errors="replace")
            durable.replace(self._refused, text)
        if before.file.parent.is_dir():
            durable.replace(before.file, before.text)
        self.end()
        return self._refused

    def _read(self) -> Before | None:
        if not self._kept.exists():
            return None
        try:
            tree = json.loads(self._kept.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{self._kept}: {error}") from None
        found = [tree.get(key) for key in KEYS] if isinstance(tree, dict) else []
        texts = [each for each in found if isinstance(each, str)]
        if len(texts) < len(KEYS):
            raise ValueError(f"{self._kept}: expected a file and its text")
        return Before(Path(texts[0]), texts[1])

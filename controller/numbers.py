# SPDX-License-Identifier: GPL-2.0-or-later
"""The numbers that domains keep for life, on disk."""

import json
import random
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from controller.addresses import MAX_ID
from controller.durable import replace

REST = 7 * 86400  # seconds until a dispid is drawn again, as in Qubes


class Numbers:
    """The qid of every name there ever was, in ``<directory>/numbers.json``.

    A file that cannot be read is an error, not a fresh start: a domain must not
    get the address that another one had.  OSError or ValueError says which.
    The dispids of late are there too, with the second each was drawn.
    """

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time) -> None:
        self._file = directory / "numbers.json"
        self._clock = clock
        self._qids: Mapping[str, int] = {}
        self._drawn: Mapping[str, int] = {}
        if self._file.exists():
            try:
                tree = json.loads(self._file.read_text(encoding="utf-8"))
            except ValueError as error:
                raise ValueError(f"{self._file}: {error}") from None
            self._qids = self._table(tree, "qids")
            self._drawn = self._table(tree, "dispids")
            if not all(1 <= number <= MAX_ID for number in self._qids.values()):
                raise ValueError(f"{self._file}: expected qids of 1 to {MAX_ID}")
            if len(set(self._qids.values())) < len(self._qids):
                raise ValueError(f"{self._file}: two names have the same qid")

    def known(self) -> Mapping[str, int]:
        """Return the qid of every name so far."""
        return dict(self._qids)

    def keep(self, qids: Mapping[str, int]) -> None:
        """Remember these, safe against a crash."""
        if self._qids.items() < {**self._qids, **qids}.items():
            self._write({**self._qids, **qids}, self._drawn)

    def dispid(self, taken: Collection[int]) -> int:
        """Draw a number for a disposable, as Qubes does, from those not taken."""
        now = int(self._clock())
        # A clock that was ahead once must not keep a number for ever.
        resting = {
            number: at for number, at in self._drawn.items() if abs(now - at) < REST
        }
        free = {*range(1, MAX_ID + 1)} - {*taken}
        # When all have been used lately, the address of an old one will do.
        rested = free - {int(number) for number in resting if number.isdecimal()}
        if not free:
            raise OSError("no free number for a disposable")
        drawn: int = random.SystemRandom().choice(sorted(rested or free))
        self._write(self._qids, {**resting, str(drawn): now})
        return drawn

    def _write(self, qids: Mapping[str, int], drawn: Mapping[str, int]) -> None:
        replace(self._file, json.dumps({"qids": qids, "dispids": drawn}, indent=1))
        self._qids, self._drawn = qids, drawn

    def _table(self, tree: object, key: str) -> dict[str, int]:
        """Return a table of whole numbers; those of an older file may be absent."""
        if not isinstance(tree, dict) or "qids" not in tree:
            raise ValueError(f"{self._file}: expected the qids, a table of numbers")
        found = tree.get(key, {})
        if isinstance(found, dict) and all(type(n) is int for n in found.values()):
            return found
        raise ValueError(f"{self._file}: expected whole numbers as {key}")

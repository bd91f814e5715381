# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known of the kernels by the last proof, for ``ravelin status``."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from controller.admin import Json
from controller.journal import Journal
from controller.output import Row, cell, rows, words
from controller.prover import Ticket
from proof.claims import Status

PENDING, PROVED = "pending", Status.PROVED.value
RESTLESS = "not proved: what is wanted changes faster than it is proved"
_WORSE = (Status.REFUTED, Status.POSSIBLE, Status.UNKNOWN)


@dataclass(slots=True)
class Standing:
    """The last answer, and when it was given by ``clock``.

    ``changed`` is whether something has changed since it was asked for.
    """

    journal: Journal
    clock: Callable[[], float] = time.monotonic
    changed: bool = False
    _data: Mapping[str, Json] = field(default_factory=dict)
    _at: float = 0.0

    def clear(self) -> None:
        """Know nothing: nothing is up."""
        self._data, self.changed = {}, False

    def expect(self) -> None:
        """Know that something is to be proved."""
        if not self._data:
            self._data = _said(PENDING, "not proved yet")

    def take(self, ticket: Ticket, *, otherwise: bool = False) -> None:
        """Learn what a proof came to; the journal hears what is other than before.

        If by now it is ``otherwise`` that is wanted, that refutes nothing.
        """
        before, self._at = self._data.get("text"), self.clock()
        first = not self._data or self._data["state"] == PENDING
        self._data = _judged(ticket)
        if otherwise and self._data["state"] == Status.REFUTED.value:
            self._data = _said(Status.UNKNOWN.value, RESTLESS)
        text = self._data["text"]
        if text != before and not (first and text == PROVED):
            self.journal.add("dom0", str(text))

    def data(self) -> Json:
        """Return it, with the seconds since; None when there is nothing to tell."""
        if not self._data:
            return None
        known = self._data["state"] != PENDING
        age = round(self.clock() - self._at, 1) if known else None
        return {**self._data, "age": age, "changed": self.changed}


def _said(
    state: str, text: str, claims: int = 0, generations: Json = None
) -> Mapping[str, Json]:
    return {
        "state": state,
        "text": text,
        "claims": claims,
        "generations": generations or {},
    }


def _judged(ticket: Ticket) -> Mapping[str, Json]:
    answer = ticket.answer
    if not isinstance(answer, Mapping):
        return _said(Status.UNKNOWN.value, f"not proved: {ticket.failed}")
    found = rows(answer, "results")
    if not found:
        return _said(Status.UNKNOWN.value, "not proved: nothing was claimed")
    state, text = PROVED, PROVED
    for status in reversed(_WORSE):
        bad = [row for row in found if row.get("status") == status.value]
        if bad:
            state, text = status.value, _words(status, bad[0])
    return _said(state, text, len(found), answer.get("generations"))


def _words(status: Status, row: Row) -> str:
    claim, packet = cell(row, "claim"), row.get("packet")
    if status is Status.REFUTED:
        return f"REFUTED: {claim}" + (f": {packet}" if packet else "")
    why = next(iter(words(row, "notes")), "no reason given")
    return f"not proved: {claim}: {why}"

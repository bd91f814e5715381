# SPDX-License-Identifier: GPL-2.0-or-later
"""Notices what happens by itself: agents that end, states that change."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from controller.deploy import Deployment
from controller.journal import Journal
from controller.said import refusals
from controller.supervise import Condition, Phase


@dataclass(slots=True)
class Observer:
    """Compares what it sees with what it saw the last time."""

    deployment: Deployment
    journal: Journal
    _conditions: Mapping[str, Condition] = field(default_factory=dict)
    _states: dict[str, str] = field(default_factory=dict)
    _refusals: Mapping[str, str] = field(default_factory=dict)
    _notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def look(self) -> bool:
        """Write the news into the journal; return whether an agent has ended."""
        ended = self._look_at_agents()
        self._look_at_states()
        self._look_at_clients()
        return ended

    def _look_at_agents(self) -> bool:
        before = self._conditions
        self._conditions = self.deployment.supervisor.conditions()
        ended = False
        for name, now in self._conditions.items():
            was = before.get(name, Condition(Phase.STARTING))
            if now.phase is Phase.FAILED and now != was:
                self.deployment.databases.silent(name)
                self._states.pop(name, None)
                self.journal.add(name, f"its agent ended, {now.reason}")
                ended = True
            elif now.phase is Phase.READY and was.phase is not Phase.READY:
                self.journal.add(name, "its agent is ready")
        return ended

    def _look_at_states(self) -> None:
        names = self.deployment.databases.names()
        for name in names:
            status = self.deployment.databases.status(name)
            if status is None or self._states.get(name) == status.state:
                continue
            before = self._states.get(name, "starting")
            self._states[name] = status.state
            self.journal.add(name, f"state {before} -> {status.state}")
        for name in self._states.keys() - set(names):
            del self._states[name]

    def _look_at_clients(self) -> None:
        refused, notes = refusals(self.deployment), dict(self.deployment.notes)
        for name, why in refused.items():
            if self._refusals.get(name) != why:
                self.journal.add(name, why)
        for name in self._refusals.keys() - refused.keys():
            self.journal.add(name, "no longer denied everything")
        for name, texts in notes.items():
            if self._notes.get(name) != texts:
                for text in texts:
                    self.journal.add(name, text)
        self._refusals, self._notes = refused, notes

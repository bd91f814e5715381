# SPDX-License-Identifier: GPL-2.0-or-later
"""The driver of a tunnel that cannot be: it says why, and carries nothing."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from rules.facts import Facts
from vpn.states import Progress


@dataclass(frozen=True, slots=True)
class Hopeless:
    """The port `agent.personality.Driver`, for a profile that is refused."""

    reason: str
    progress: Progress = Progress.HOPELESS

    def fileno(self) -> int:
        """Return -1."""
        return -1

    def handle(self) -> bool:
        """Do nothing."""
        return False

    def next_deadline(self) -> float:
        """Return never."""
        return math.inf

    def told(self, words: Mapping[str, str]) -> None:
        """Listen to nothing."""

    def facts(self, facts: Facts) -> Facts:
        """Return the facts without any way out, and without resolvers."""
        return replace(facts, dns={}, resolvers=frozenset())

    def follow(self, state: str, facts: Facts) -> None:
        """Do nothing."""

    def trouble(self) -> str:
        """Return the reason."""
        return self.reason

    def report(self) -> Mapping[str, str]:
        """Return nothing."""
        return {}

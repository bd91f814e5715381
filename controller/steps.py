# SPDX-License-Identifier: GPL-2.0-or-later
"""What work hands to the daemon's loop between two steps."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

from controller.admin import Answer, Failure

PATIENCE = 60.0  # seconds for agents to do what they were told; some machines are slow


@dataclass(frozen=True, slots=True)
class Until:
    """Something to wait for; `TimeoutError` comes back after ``seconds``."""

    what: str
    done: Callable[[], bool]
    seconds: float = PATIENCE


Steps = Iterator[str | Until]
"""A text is progress, for people."""

Reply = Answer | Failure
Work = Generator[str | Until, None, Reply]
"""Steps that end in what the command is told."""

# SPDX-License-Identifier: GPL-2.0-or-later
"""Why a process has ended is said in its own last words, if those are any."""

import os
from pathlib import Path

import pytest

from controller.platforms.processes import Agent

BOX = (
    f"┌{'─' * 54}┐\n│   See https://www.example.com/   │\n│{' ' * 54}│\n└{'─' * 54}┘\n"
)
CASES = {
    "nothing": ("", "exit code 3"),
    "a line": ("starting\nERROR: no device\n", "exit code 3: ERROR: no device"),
    "a box alone": (BOX, "exit code 3"),
    "a line after a box": (f"{BOX}ERROR: no device\n", "exit code 3: ERROR: no device"),
    "a line before a box": (f"ERROR: none\n{BOX[-60:]}", "exit code 3: ERROR: none"),
    "other letters": ("no café\n\n", "exit code 3: no caf??"),
    "a long line": ("x" * 500, f"exit code 3: {'x' * 200}"),
}


@pytest.mark.parametrize(("said", "reason"), CASES.values(), ids=CASES)
def test_last_words_are_the_last_that_can_be_read(
    tmp_path: Path, said: str, reason: str
) -> None:
    log = tmp_path / "log"
    log.write_text(said)
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 3"], {})

    assert Agent(pid, os.pidfd_open(pid), None, log).finish() == reason

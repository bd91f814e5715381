# SPDX-License-Identifier: GPL-2.0-or-later
"""The page of the control port names what it takes, and its bounds."""

from pathlib import Path

import pytest

from rules.redirects import CONTROL
from torvm.desk import BURST, INTERVAL, MOST, PATIENCE, RATE
from torvm.filter import DONE, EVENTS, FILTERED, LONGEST, STRANGER, Known

PAGE = Path(__file__).parents[2] / "docs/reference/tor-control-port.md"
COMMANDS = ("PROTOCOLINFO", "AUTHENTICATE", "SIGNAL NEWNYM", "QUIT")


@pytest.mark.parametrize(
    "words",
    [
        *(f"`{each}`" for each in (*COMMANDS, *EVENTS, DONE, FILTERED, STRANGER)),
        *(f"| `GETINFO {key}` |" for key in Known("0.4.9").values()),
        f"at port {CONTROL} of",
        f"| {MOST}; one more",
        f"| {LONGEST} bytes |",
        f"| {BURST:.0f} at once and {RATE:.0f} a second",
        f"| {PATIENCE:.0f} seconds |",
        f"every {INTERVAL:.0f} seconds",
    ],
)
def test_the_page_says_what_the_code_does(words: str) -> None:
    assert words in PAGE.read_text()

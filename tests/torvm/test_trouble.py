# SPDX-License-Identifier: GPL-2.0-or-later
"""The cause that is shown is the one to mend first."""

from dataclasses import replace

import pytest

from torvm.said import Bootstrap, Clock
from torvm.trouble import Condition, trouble

WELL = Condition(uplink=True, running=True, bootstrap=Bootstrap(100, "Done"))
STUCK = Bootstrap(5, "Connecting to a relay", "CONNECTREFUSED", stuck=True)


def test_nothing_is_said_when_nothing_is_wrong() -> None:
    assert trouble(WELL) == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"refused": "bridges:3: expected …"}, "bridges:3: expected …"),
        ({"uplink": False}, "no uplink"),
        ({"running": False}, "tor is not running yet"),
        (
            {"running": False, "ended": 3},
            "tor ended 3 times as soon as it was started: see its log",
        ),
        ({"running": False, "silent": True}, "tor runs, but does not answer"),
        (
            {"running": False, "large": True},
            "tor took too much memory, and is started anew",
        ),
        ({"transport": "it does not answer"}, "it does not answer"),
        ({"clock": Clock(3 * 3600)}, "the clock is 3 h ahead"),
        ({"clock": Clock(-20 * 60)}, "the clock is 20 min behind"),
        ({"clock": Clock(-5 * 86400)}, "the clock is 5 days behind"),
        ({"clock": Clock(None)}, "the clock jumped"),
        ({"clock": Clock(30)}, ""),
        ({"proxy": "does not answer", "bootstrap": STUCK}, "the proxy does not answer"),
        ({"bootstrap": STUCK}, "stuck at 5 %: connecting to a relay: refused"),
        (
            {"bootstrap": replace(STUCK, reason="MISC")},
            "stuck at 5 %: connecting to a relay: misc",
        ),
        ({"bootstrap": replace(STUCK, stuck=False)}, ""),
        ({"live": False}, "nothing comes back from the Tor network"),
        ({"waits_for": "the list of relays"}, "waits for the list of relays"),
        ({"order": "Failed to bind"}, "tor refuses: Failed to bind"),
        ({"shared": True}, "two clients used one circuit: stop using Tor here"),
    ],
)
def test_each_cause_has_its_words(change: dict[str, object], words: str) -> None:
    assert trouble(replace(WELL, **change)) == words  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"refused": "x"}, {"running": False}),
        ({"uplink": False}, {"running": False}),
        ({"uplink": False}, {"bootstrap": STUCK}),
        ({"uplink": False}, {"transport": "it does not answer"}),
        # Who speaks for tor takes tor with it.
        ({"transport": "it does not answer"}, {"running": False, "silent": True}),
        ({"transport": "it does not answer"}, {"bootstrap": STUCK}),
        ({"transport": "it does not start"}, {"waits_for": "the program"}),
        # A clock that is wrong looks like a network that is blocked.
        ({"clock": Clock(7200)}, {"bootstrap": STUCK}),
    ],
)
def test_what_explains_the_other_comes_first(
    first: dict[str, object], second: dict[str, object]
) -> None:
    both = replace(WELL, **first, **second)  # type: ignore[arg-type]

    assert trouble(both) == trouble(replace(WELL, **first))  # type: ignore[arg-type]

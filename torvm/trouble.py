# SPDX-License-Identifier: GPL-2.0-or-later
"""Why there is no way through Tor, as one line for people."""

from dataclasses import dataclass

from torvm.said import Bootstrap, Clock

MINUTE, HOUR, DAY = 60, 3600, 86400  # seconds
# Less does no harm: tor itself allows a clock that is half an hour wrong.
NOTICED = 10 * MINUTE
MANY = 3  # starts that end before tor says a word

# The reasons of control-spec, 4.1.10 and 4.1.4, in the words of people.
REASONS = {
    "CONNECTREFUSED": "refused",
    "NOROUTE": "no route",
    "TIMEOUT": "no answer",
    "CONNECTRESET": "cut off",
    "DONE": "closed at once",
    "TLS_ERROR": "no TLS",
    "IDENTITY": "another relay answers",
    "PT_MISSING": "nothing speaks the bridge's transport",
    "RESOURCELIMIT": "out of resources here",
}


@dataclass(frozen=True, slots=True)
class Condition:
    """All that the cause is found in.

    ``refused`` is what of the configuration nobody can work with, ``ended`` how
    often tor ended before it said a word, ``silent`` whether it does not answer,
    ``large`` whether it was ended for its size, ``transport`` what is wrong with who
    speaks for it, ``proxy`` what its own one does.
    """

    refused: str = ""
    uplink: bool = False
    running: bool = False
    ended: int = 0
    silent: bool = False
    large: bool = False
    transport: str = ""
    order: str = ""
    proxy: str = ""
    waits_for: str = ""
    clock: Clock | None = None
    bootstrap: Bootstrap | None = None
    live: bool = True
    shared: bool = False


def trouble(now: Condition) -> str:
    """Return the cause that is to be mended first, or nothing."""
    causes = (
        now.refused,
        "two clients used one circuit: stop using Tor here" if now.shared else "",
        now.transport if now.uplink else "",
        _start(now),
        "" if now.uplink else "no uplink",
        now.waits_for and f"waits for {now.waits_for}",
        now.order and f"tor refuses: {now.order}",
        _clock(now.clock),
        now.proxy and f"the proxy {now.proxy}",
        _bootstrap(now.bootstrap),
        "" if now.live else "nothing comes back from the Tor network",
    )
    return next((cause for cause in causes if cause), "")


def _start(now: Condition) -> str:
    if now.running:
        return ""
    if now.large:
        return "tor took too much memory, and is started anew"
    if now.silent:
        return "tor runs, but does not answer"
    if now.ended >= MANY:
        return f"tor ended {now.ended} times as soon as it was started: see its log"
    return "tor is not running yet" if now.uplink else "no uplink"


def _clock(clock: Clock | None) -> str:
    if clock is None:
        return ""
    if clock.ahead is None:
        return "the clock jumped"
    if abs(clock.ahead) < NOTICED:
        return ""
    which = "ahead" if clock.ahead > 0 else "behind"
    return f"the clock is {_span(abs(clock.ahead))} {which}"


def _span(seconds: int) -> str:
    if seconds < HOUR:
        return f"{seconds // MINUTE} min"
    return f"{seconds // HOUR} h" if seconds < 2 * DAY else f"{seconds // DAY} days"


def _bootstrap(last: Bootstrap | None) -> str:
    if last is None or not last.stuck:
        return ""
    reason = REASONS.get(last.reason, last.reason.lower() or "no reason given")
    return f"stuck at {last.progress} %: {last.summary.lower()}: {reason}"

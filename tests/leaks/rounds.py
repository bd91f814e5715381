# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults one after another, in an order that is another each time.

They are dealt like cards, so that each comes as often as every other.  After half
of them the next one waits until clients flow again, and that is how recovery is
measured; the others have it come down upon what is not well yet.

``LEAK_ROUNDS`` says how many, ``LEAK_SEED`` gives an order again.  ``LEAK_RECORD``
names a file that gets what was seen as a line of JSON (docs/reference/leak-tests.md).
"""

import json
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from tests.lab.sniffer import Packet, Sniffer

ROUNDS = int(os.environ.get("LEAK_ROUNDS", "0"))
RECORD = os.environ.get("LEAK_RECORD", "")
AT_ONCE = 10  # rounds of one capture, which is held in memory

Place = TypeVar("Place")


class Wire(Protocol):
    """What a judge saw; complete when its capture has ended."""

    @property
    def packets(self) -> Sequence[Packet]:
        """All that left the gateway."""

    @property
    def leaked(self) -> Sequence[Packet]:
        """What of it may leave in no state."""


@dataclass(frozen=True)
class Uplink:
    """A capture in the netvm of a gateway, which has no other client."""

    sniffer: Sniffer
    leaks: Callable[[Sniffer], list[Packet]]

    @property
    def packets(self) -> list[Packet]:
        return [
            packet
            for packet in self.sniffer.packets
            if not packet.outgoing and packet.interface.startswith("vif")
        ]

    @property
    def leaked(self) -> list[Packet]:
        return self.leaks(self.sniffer)


@contextmanager
def uplink(
    sniffer: Sniffer, leaks: Callable[[Sniffer], list[Packet]]
) -> Iterator[Uplink]:
    """Capture for a while."""
    with sniffer:
        yield Uplink(sniffer, leaks)


@dataclass
class Record:
    """What rounds came to; ``seconds`` is how long each fault kept clients waiting."""

    gateway: str
    seed: int = field(
        default_factory=lambda: int(os.environ.get("LEAK_SEED", time.time()))
    )
    rounds: int = 0
    frames: int = 0
    leaked: int = 0
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def took(self, happening: str, seconds: float) -> None:
        """Note how long clients had to wait."""
        self.seconds.setdefault(happening, []).append(round(seconds, 2))

    def saw(self, rounds: int, wire: Wire) -> None:
        """Note what a judge saw in so many rounds."""
        self.rounds += rounds
        self.frames += len(wire.packets)
        self.leaked += len(wire.leaked)

    def keep(self) -> None:
        """Write it down, if somebody asked for it."""
        if RECORD:
            with Path(RECORD).open("a") as file:
                file.write(json.dumps(asdict(self)) + "\n")


def happen(
    place: Place,
    record: Record,
    happenings: Sequence[Callable[[Place], None]],
    *,
    watch: Callable[[], AbstractContextManager[Wire]],
    flows: Callable[[], object],
    fallen: Callable[[], Sequence[object]],
    rounds: int,
) -> list[Packet]:
    """Let things happen; return what leaked.  ``flows`` returns when clients do.

    Of what has ``fallen`` by itself there may be nothing.
    """
    dice, leaks = random.Random(record.seed), list[Packet]()
    happened: list[str] = []
    left = list(_dealt(happenings, ROUNDS or rounds, dice))
    try:
        while left:
            now, left = left[:AT_ONCE], left[AT_ONCE:]
            with watch() as wire:
                for happens in now:
                    happened.append(happens.__name__)
                    begin = time.monotonic()
                    happens(place)
                    if happens is now[-1] or dice.random() < 1 / 2:
                        flows()
                        record.took(happens.__name__, time.monotonic() - begin)
            record.saw(len(now), wire)
            leaks += wire.leaked
            fell = fallen()
            assert not fell, fell
    except AssertionError as error:
        error.add_note(f"seed {record.seed}, the last was {happened[-AT_ONCE:]}")
        raise
    finally:
        record.keep()
    return leaks


def _dealt(
    cards: Sequence[Callable[[Place], None]], count: int, dice: random.Random
) -> Iterator[Callable[[Place], None]]:
    for _ in range(-(-count // len(cards))):
        deck = list(cards)
        dice.shuffle(deck)
        yield from deck[: min(count, len(deck))]
        count -= len(deck)

# SPDX-License-Identifier: GPL-2.0-or-later
"""What a proof may come to."""

from dataclasses import dataclass

from proof.explore import Point
from proof.machine import Seen
from proof.outcome import End


@dataclass(frozen=True, slots=True)
class Proved:
    """It holds for every packet, given the assumptions.

    ``witness`` is a packet it is about, so the proof is not an empty one; None:
    there is no such packet.
    """

    assumptions: tuple[str, ...]
    witness: Point | None


@dataclass(frozen=True, slots=True)
class Refuted:
    """A packet for which it does not hold, what happens to it, and by which rules.

    The end is that of the chain in question; `End.RETURN`: it falls off it.
    """

    packet: Point
    end: End
    way: tuple[Seen, ...]


@dataclass(frozen=True, slots=True)
class Possible:
    """A packet for which it may not hold: that depends on what is not modelled."""

    packet: Point
    doubts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unknown:
    """No answer, and why."""

    reason: str


Answer = Proved | Refuted | Possible | Unknown

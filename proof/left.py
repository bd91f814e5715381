# SPDX-License-Identifier: GPL-2.0-or-later
"""How one packet leaves a place."""

from dataclasses import dataclass

from proof.bytecode import Place
from proof.machine import Seen
from proof.world import Packet


@dataclass(frozen=True, slots=True)
class Left:
    """How a packet left a place; ``packet`` is as it leaves by ``out``.

    ``rule`` is the one that refused it, or that let it through forward or input.
    """

    verdict: str
    seen: tuple[Seen, ...]
    rule: Seen | None = None
    chain: Place | None = None
    out: str | None = None
    packet: Packet | None = None
    reason: str = ""
    doubts: tuple[str, ...] = ()


class EndedError(Exception):
    """The packet went no further."""

    def __init__(self, left: Left) -> None:
        super().__init__(left.verdict)
        self.left = left

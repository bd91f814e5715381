# SPDX-License-Identifier: GPL-2.0-or-later
"""How one packet leaves a place."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from proof.bytecode import Place
from proof.fields import DPORT, DST, SPORT, SRC
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


def on_its_way(packet: Packet, fields: Mapping[str, int], source: int) -> Packet:
    """Return the packet with what its fields are by now; ``source``: if not known."""
    address = type(packet.source)
    return replace(
        packet,
        source=address(fields.get(SRC, source)),
        destination=address(fields[DST]),
        first=fields[SPORT],
        second=fields[DPORT],
        fields={
            name: number
            for name, number in fields.items()
            if name.startswith(("network header byte", "transport header byte"))
        },
    )

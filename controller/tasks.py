# SPDX-License-Identifier: GPL-2.0-or-later
"""What the daemon has the prover do."""

from dataclasses import dataclass

from controller.scene import Scene
from proof.world import Packet


@dataclass(frozen=True, slots=True)
class Verify:
    """Prove all that must hold; with ``replay``, send what refutes it.

    ``afresh``: without what is remembered of an earlier proof, and with a look at
    the flows that run.
    """

    scene: Scene
    replay: bool
    afresh: bool = False


@dataclass(frozen=True, slots=True)
class Walk:
    """Say what the kernels do with packets of a domain."""

    scene: Scene
    source: str
    packets: tuple[Packet, ...]


Task = Verify | Walk

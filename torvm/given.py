# SPDX-License-Identifier: GPL-2.0-or-later
"""What a TorVM is given besides its QubesDB: files that may hold secrets.

They are in the directory that ``CREDENTIALS_DIRECTORY`` names (systemd.exec(5)).
"""

import os
from dataclasses import dataclass
from pathlib import Path

from torvm import bridges
from torvm.bridges import Bridge, BridgeError
from torvm.torrc import NetworkError, private_network

DIRECTORY = "CREDENTIALS_DIRECTORY"


@dataclass(frozen=True, slots=True)
class Given:
    """Bridges, the options of a private network, or why these are no use."""

    bridges: tuple[Bridge, ...] = ()
    network: tuple[str, ...] = ()
    refused: str = ""

    @property
    def transports(self) -> frozenset[str]:
        """The transports that the bridges are spoken to by."""
        return frozenset(bridge.transport for bridge in self.bridges) - {""}


def given() -> Given:
    """Read the files there are; one that is refused takes all with it."""
    try:
        untrusted_bridges, untrusted_network = _text("bridges"), _text("network")
        return Given(
            () if untrusted_bridges is None else bridges.parse(untrusted_bridges),
            () if untrusted_network is None else private_network(untrusted_network),
        )
    except (BridgeError, NetworkError) as error:
        return Given(refused=str(error))
    except OSError as error:
        return Given(refused=f"a file of the policy: {error.strerror}")


def _text(name: str) -> bytes | None:
    directory = os.environ.get(DIRECTORY)
    if directory is None:
        return None
    try:
        return (Path(directory) / name).read_bytes()
    except FileNotFoundError:
        return None

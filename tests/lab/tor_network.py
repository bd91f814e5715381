# SPDX-License-Identifier: GPL-2.0-or-later
"""One private Tor network for a whole test run: the fixture ``tor_network``.

`tests/conftest.py` imports it, so that there is one wherever it is asked for.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from controller.lab.tor_network import Network, TorNetwork
from controller.platforms.lab import Internet

# Of curl(1): a circuit may end while it is used, which it takes for no transient error.
RETRY = ("--retry", "3", "--retry-all-errors")


@dataclass(frozen=True, slots=True)
class TorLab:
    """An internet to attach NetVMs to, and the Tor network in it, which is ready."""

    internet: Internet
    tors: TorNetwork
    network: Network


@pytest.fixture(scope="session")
def tor_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TorLab]:
    internet = Internet(tmp_path_factory.mktemp("tor"))
    internet.up()
    try:
        tors = TorNetwork(internet.hosts)
        yield TorLab(internet, tors, tors.up())
    finally:
        internet.down()

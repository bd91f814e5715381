# SPDX-License-Identifier: GPL-2.0-or-later
"""One private Tor network and one chain before it, for all tests of this folder."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tor.chain import TorChain


@pytest.fixture(scope="session")
def _tor_chain() -> Iterator[TorChain]:
    # Unix sockets have short paths.
    runtime = Path(tempfile.mkdtemp(prefix="rv", dir="/run"))
    chain = TorChain.__new__(TorChain)
    try:
        chain.__init__(runtime)  # type: ignore[misc]
        yield chain
    finally:
        chain.close()
        shutil.rmtree(runtime)


@pytest.fixture
def tor(_tor_chain: TorChain) -> TorChain:
    """The chain, up, with nothing special about sys-tor."""
    _tor_chain.plain()
    return _tor_chain


@pytest.fixture
def changed(_tor_chain: TorChain) -> TorChain:
    """The chain, of which a test makes what it wants; who wants it plain says so."""
    return _tor_chain

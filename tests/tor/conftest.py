# SPDX-License-Identifier: GPL-2.0-or-later
"""One private Tor network and one chain before it, for all tests of this folder."""

from collections.abc import Iterator

import pytest

from tests.tor.chain import TorChain, tor_chain


@pytest.fixture(scope="session")
def _tor_chain() -> Iterator[TorChain]:
    with tor_chain() as chain:
        yield chain


@pytest.fixture
def tor(_tor_chain: TorChain) -> TorChain:
    """The chain, up, with nothing special about sys-tor."""
    _tor_chain.plain()
    return _tor_chain


@pytest.fixture
def changed(_tor_chain: TorChain) -> TorChain:
    """The chain, of which a test makes what it wants; who wants it plain says so."""
    return _tor_chain

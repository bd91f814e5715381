# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine with a tunnel of each kind, for the tests of a module."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from tests.leaks.tunnels import Vpn, flows, openvpn, wireguard

KINDS: tuple[Callable[[], AbstractContextManager[Vpn]], ...] = (wireguard, openvpn)


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.__name__)
def tunnel(request: pytest.FixtureRequest) -> Iterator[Vpn]:
    with request.param() as made:
        yield made


@pytest.fixture
def vpn(tunnel: Vpn) -> Vpn:
    """The room, where clients flow."""
    flows(tunnel)
    return tunnel

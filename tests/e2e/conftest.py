# SPDX-License-Identifier: GPL-2.0-or-later
from collections.abc import Iterator

import pytest

from tests.e2e.machine import HOME, Machine, machine
from tests.e2e.vpn_room import VpnRoom


@pytest.fixture
def fresh() -> Iterator[Machine]:
    """A machine on which nothing is up."""
    with machine() as made:
        yield made


@pytest.fixture(scope="module")
def _running() -> Iterator[Machine]:
    with machine() as made:
        made.up()
        yield made
        made.does("down")


@pytest.fixture
def home(_running: Machine) -> Iterator[Machine]:
    """The home of the examples, up, as its policy file has it at first."""
    if _running.policy.read_text() != HOME:
        _running.policy.write_text(HOME)
    _running.does("up", str(_running.policy))
    _running.internet.set_names({})
    yield _running
    _running.hang_up()


@pytest.fixture(scope="module")
def _room(request: pytest.FixtureRequest) -> Iterator[VpnRoom]:
    """The room of the kind that a module names."""
    with request.param() as made:
        yield made
        made.machine.does("down")


@pytest.fixture
def made(_room: VpnRoom) -> VpnRoom:
    """A NetVM alone and a provider; of a test before there is no VPN and no client."""
    _room.clear()
    return _room

# SPDX-License-Identifier: GPL-2.0-or-later
from collections.abc import Iterator

import pytest

from tests.guest.inside.unit_room import uplink


@pytest.fixture
def gateway() -> Iterator[None]:
    """A VM with an uplink; each test has its own, and no rules of an earlier one."""
    with uplink():
        yield

# SPDX-License-Identifier: GPL-2.0-or-later
"""On Debian's own kernel and under its systemd: WireGuard of the kernel, the units."""

import pytest

from tests.guest.guest import Ran, run

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(2400)]

# Which tests, and how many each part has: one that vanished would pass.
TESTS = {
    "tests/guest/inside/test_units_under_systemd.py": 4,
    "tests/guest/inside/test_daemons_under_systemd.py": 5,
}
BESIDE = {
    "tests/vpn/test_wireguard_kernel.py": 29,
    "tests/guest/inside/test_kernel_wireguard.py": 5,
}
PARTS = TESTS | BESIDE


@pytest.fixture(scope="module")
def ran() -> Ran:
    """All of it in one boot."""
    return run(list(TESTS), list(BESIDE))


@pytest.mark.parametrize("part", PARTS)
def test_a_part_passes_on_debians_kernel(ran: Ran, part: str) -> None:
    found = {name: x for name, x in ran.outcomes.items() if name.startswith(part)}

    assert set(found.values()) == {"PASSED"}, ran.said
    assert len(found) == PARTS[part]

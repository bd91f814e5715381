# SPDX-License-Identifier: GPL-2.0-or-later
"""tor enters the network by the same relays, whatever becomes of its gateway."""

import re

import pytest

from tests.tor.chain import TorChain

pytestmark = pytest.mark.kernel

# As tor writes them down: which relay, and when it was used first.
GUARD = re.compile(r"^Guard in=default rsa_id=(\S+) .*confirmed_on=(\S+)", re.MULTILINE)


def chosen(tor: TorChain) -> frozenset[tuple[str, str]]:
    """Return the entry guards that were in use, as they are kept for the next tor."""
    text = (tor.runtime / "state/domains/sys-tor/tor/tor/state").read_text()
    return frozenset((found[1], found[2]) for found in GUARD.finditer(text))


def test_guards_are_kept_by_a_tor_that_is_told_to_end_at_once(
    changed: TorChain,
) -> None:
    """It has not run for long; one that is to forget them meanwhile changes nothing."""
    found = []
    for _ in range(2):
        changed.become()
        changed.through("anon")
        changed.become("forget = true")
        found.append(chosen(changed))
        changed.through("anon")

    assert found[0]
    assert found[0] <= found[1]
    changed.become()
    changed.through("anon")
    assert found[1] <= chosen(changed)

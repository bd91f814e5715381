# SPDX-License-Identifier: GPL-2.0-or-later
"""Behind a tunnel nothing leaves but through it, whether or not it works."""

import json
from collections.abc import Iterator

import pytest

from tests.e2e.machine import HTTP, WEB4, becomes, until
from tests.e2e.wireguard_room import Room, connected

pytestmark = pytest.mark.kernel

LONG = 90.0  # seconds for a proof on a machine that is busy


@pytest.fixture(scope="module")
def _running() -> Iterator[Room]:
    with connected() as made:
        yield made


@pytest.fixture
def vpn(_running: Room) -> Room:
    """The room, with a tunnel that works."""
    _running.give_good()
    _running.machine.up()
    until(_running.flows, LONG)
    return _running


def answers(vpn: Room, status: int) -> dict[tuple[str, int], str]:
    done = vpn.machine.ravelin("--json", "verify", within=LONG)
    assert done.status == status, done
    rows = json.loads(done.out)["results"]
    return {(row["claim"], row["version"]): row["status"] for row in rows}


def test_all_is_proved_of_a_tunnel_that_works(vpn: Room) -> None:
    assert vpn.machine.reaches("work", WEB4, HTTP)

    found = answers(vpn, 0)

    for name in ("work", "personal"):
        for version in (4, 6):
            claim = f"nothing of {name} leaves but through sys-vpn"
            assert found[claim, version] == "proved"
    users = "of the users of sys-vpn only "
    assert [x for (claim, _), x in found.items() if claim.startswith(users)] == [
        "proved",
        "proved",
    ]
    done = vpn.machine.ravelin("--json", "explain", "work", f"{WEB4}:{HTTP}")
    assert done.status == 0
    (route,) = json.loads(done.out)["routes"]
    assert [hop["out"] for hop in route["kernels"]] == ["wg0"]


def test_nothing_leaks_behind_a_tunnel_that_cannot_be(vpn: Room) -> None:
    vpn.give("[Interface]\n")
    vpn.machine.ravelin("apply", within=LONG)
    becomes(lambda: vpn.vpn()["state"], "error", LONG)

    found = answers(vpn, 3)

    assert found["nothing of work leaves but through sys-vpn", 4] == "proved"
    assert found["work reaches no more than its list accepts", 4] == "proved"
    assert "refuted" not in found.values()
    assert not vpn.machine.reaches("work", WEB4, HTTP)

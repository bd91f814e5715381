# SPDX-License-Identifier: GPL-2.0-or-later
"""What was proved is told with all that is behind it, and never better than it is."""

from itertools import product

import pytest

from controller import shown
from controller.admin import Exit, Json
from controller.shown import POSSIBLE, PROVED, REFUTED, STATUSES, UNKNOWN

HOP = {
    "domain": "fw",
    "came_by": "vif2.0",
    "packet": "tcp 1 > 2",
    "verdict": "sent",
    "rule": "ip qubes custom-forward handle 9",
    "out": "eth0",
    "reason": None,
}


def row(status: str, **more: Json) -> dict[str, Json]:
    claim = f"{status} is claimed"
    return {
        "claim": claim,
        "version": 4,
        "status": status,
        "packet": "tcp 1 > 2",
        "enters": "fw by vif2.0",
        "hops": [],
        "notes": [],
        "replay": None,
        **more,
    }


def told(*rows: dict[str, Json]) -> list[str]:
    data = {"results": rows, "generations": {"net": 7, "fw": 41}}
    return shown.verified(data, colour=False)


def test_a_proof_is_told_with_a_witness_its_assumptions_and_its_generation() -> None:
    notes = ["conntrack works"]

    assert told(row(PROVED, notes=notes), row(PROVED, notes=notes)) == [
        "ANSWER  IP  CLAIM              SUCH AS",
        "PROVED  4   proved is claimed  tcp 1 > 2",
        "PROVED  4   proved is claimed  tcp 1 > 2",
        "assuming: conntrack works",
        "2 claims: 2 proved; generation net 7, fw 41",
    ]


def test_a_refutation_is_told_with_its_packet_its_way_and_the_replay() -> None:
    found = told(row(REFUTED, hops=[HOP], replay="replayed: it left net by eth0"))

    assert found[2:] == [
        "REFUTED: refuted is claimed",
        "  tcp 1 > 2, into fw by vif2.0",
        "  IN THE KERNEL OF  VERDICT  RULE                              OUT BY  WHY",
        "  fw                sent     ip qubes custom-forward handle 9  eth0    -",
        "  replayed: it left net by eth0",
        "1 claims: 1 refuted; generation net 7, fw 41",
    ]


@pytest.mark.parametrize(
    ("status", "lead"), [(POSSIBLE, "it depends on"), (UNKNOWN, "because")]
)
def test_what_is_not_proved_says_why(status: str, lead: str) -> None:
    found = told(row(status, packet=None, notes=["a set that changes", "\x1b[2J"]))

    assert found[2:-1] == [
        f"{status.upper()}: {status} is claimed",
        f"  {lead}: a set that changes",
        f"  {lead}: ?[2J",
    ]


def test_nothing_proved_is_never_all_proved() -> None:
    assert shown.verdict_of_all({"results": []}) is Exit.NOT_ENFORCED
    assert shown.verdict_of_all(None) is Exit.NOT_ENFORCED
    assert shown.verdict_of_all({"results": [{}]}) is Exit.NOT_ENFORCED


@pytest.mark.parametrize("statuses", [*product(STATUSES, repeat=2)])
def test_the_exit_status_is_that_of_the_worst_answer(statuses: tuple[str, ...]) -> None:
    expected = Exit.OK
    if {POSSIBLE, UNKNOWN} & {*statuses}:
        expected = Exit.NOT_ENFORCED
    if REFUTED in statuses:
        expected = Exit.DIFFERS

    assert shown.verdict_of_all({"results": [row(s) for s in statuses]}) is expected


def test_a_route_shows_where_policy_and_kernels_differ() -> None:
    route = {
        "destination": "192.0.2.1",
        "verdict": "deny",
        "hops": [],
        "kernels": [HOP],
        "kernel_verdict": "accept",
        "differs": True,
    }

    found = shown.routes({"routes": [route]}, colour=False)

    assert found[0] == "192.0.2.1: deny"
    assert found[-1] == "DIFFERS: policy deny, kernels accept"


def test_a_route_whose_kernels_nobody_could_read_says_so() -> None:
    route = {
        "destination": "192.0.2.1",
        "verdict": "accept",
        "kernel_verdict": "unknown",
        "missing": "fw: No such file",
    }

    found = shown.routes({"routes": [route]}, colour=False)

    assert found[-1] == "what the kernels do is not known: fw: No such file"


PROOF = {"state": "proved", "text": "proved", "age": 0.3, "generations": {"net": 41}}


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        ({"proof": PROOF}, ["proved 0.3 s ago, generation net 41"]),
        (
            {"proof": {**PROOF, "state": "refuted", "text": "REFUTED: a: b"}},
            ["REFUTED: a: b, 0.3 s ago, generation net 41"],
        ),
        (
            {"proof": {**PROOF, "changed": True}},
            ["proved 0.3 s ago, generation net 41; something has changed since"],
        ),
        ({"proof": {"text": "not proved yet", "age": None}}, ["not proved yet"]),
        ({"proof": None, "confirm": None}, []),
        (
            {"confirm": 41},
            ["rolled back in 41 s unless you give `ravelin confirm`"],
        ),
    ],
)
def test_status_says_what_is_known_of_the_kernels(
    data: dict[str, Json], lines: list[str]
) -> None:
    assert [*shown.standing(data, colour=False)] == lines

# SPDX-License-Identifier: GPL-2.0-or-later
"""Every part of the bench still runs, with numbers too small to mean anything.

But not the one that mounts another daemon over this machine's.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bench.bulk import bulk, packets
from tests.bench.changes import changes, cold
from tests.bench.figures import DOCS, Figure, page
from tests.bench.long_list import long_list
from tests.bench.memory import cycles, imports, memory
from tests.bench.openvpn import openvpn
from tests.bench.proof import chain, large
from tests.bench.recovery import tor
from tests.bench.scene import Scene, scene
from tests.bench.traffic import flows
from tests.bench.wireguard import wireguard

PARTS: dict[str, Callable[[Scene], Iterator[Figure]]] = {
    "cold start": lambda place: cold(place, clients=3, rounds=1),
    "one change": lambda place: changes(place, clients=2, rounds=2),
    "a long list": lambda place: long_list(place, rules=40, rounds=2),
    "imports": lambda _: imports(),
    "memory": lambda place: memory(place, clients=2, changes=2, limit=1000),
    "attach and detach": lambda place: cycles(place, 20),
    "proofs of one gateway": lambda place: large(place, clients=2, rules=4),
    "proofs of a chain": lambda place: chain(place, clients=2, rules=4, hops=3),
    "one TCP flow": lambda place: bulk(place, seconds=1, rounds=1),
    "one flow's packets": lambda place: packets(place, count=100, rounds=1),
    "a tunnel of WireGuard": lambda place: wireguard(place, seconds=1, rounds=1),
    "a tunnel of OpenVPN": lambda place: openvpn(place, seconds=1, rounds=1),
    "Tor": lambda _: tor(rounds=1),
    "new flows": lambda place: flows(place, clients=2, packets=100, rounds=1),
}


@pytest.mark.kernel
@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_the_part_measures_something(
    part: Callable[[Scene], Iterator[Figure]], tmp_path: Path
) -> None:
    with scene(tmp_path) as place:
        figures = list(part(place))

    assert figures
    assert all(figure.line() for figure in figures)


def test_the_page_is_made_of_the_figures() -> None:
    text = (DOCS / "benchmarks.json").read_text()

    assert page(text) == (DOCS / "benchmarks.md").read_text()

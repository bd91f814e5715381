# SPDX-License-Identifier: GPL-2.0-or-later
"""What cannot be read is never proved, whatever cuts it off."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest

from controller import prove
from controller.platforms.netns import Netns
from controller.prove import Desk
from controller.tasks import Verify, Walk
from proof.netlink import SnapshotError
from proof.snapshot import Snapshot
from proof.world import Packet
from tests.controller.scenes import nothing, scene


class Elsewhere(Netns):
    """A platform whose domains cannot be entered, since there are none."""

    def net(self, name: str) -> Path:
        return Path(name)


class Kernels:
    """Snapshots by domain; who is in ``broken`` has none, for that reason."""

    def __init__(self, broken: dict[str, Exception]) -> None:
        self.broken = broken
        self._name = ""

    @contextmanager
    def inside(self, path: Path) -> Iterator[Self]:
        self._name = path.name
        yield self

    def here(self) -> Snapshot:
        if self._name in self.broken:
            raise self.broken[self._name]
        return nothing()


def desk(monkeypatch: pytest.MonkeyPatch, **broken: Exception) -> Desk:
    kernels = Kernels(broken)
    monkeypatch.setattr(prove.namespaces, "inside", kernels.inside)
    monkeypatch.setattr(prove.snapshot, "here", kernels.here)
    return Desk(Elsewhere(Path("/nowhere")))


def rows(answer: object) -> list[dict[str, object]]:
    assert isinstance(answer, dict)
    found: list[dict[str, object]] = answer["results"]
    return found


@pytest.mark.parametrize(
    "error",
    [
        SnapshotError("chains: the answer is cut off"),
        FileNotFoundError(2, "No such file or directory", "fw"),
    ],
)
def test_a_domain_that_cannot_be_read_is_unknown_and_so_is_all_behind_it(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    home = scene('[[assert]]\nfrom = "work"\nexpect = "blocked"\n')
    found = rows(desk(monkeypatch, fw=error).carry_out(Verify(home, replay=False)))

    unread = next(r for r in found if r["claim"] == "fw is as it should be")
    assert (unread["status"], unread["notes"]) == ("unknown", [str(error)])
    about = [r for r in found if "work" in str(r["claim"])]
    assert {r["status"] for r in about} == {"unknown"}
    (asserted,) = (r for r in about if "as line" in str(r["claim"]))
    assert asserted["notes"] == ["fw, which is on the way, could not be read"]


def test_who_walks_is_told_which_domain_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = scene()
    work = home.domains.named("work").ip4
    packet = Packet(work, work + 1, 6, 1, 2)
    broken = {"net": SnapshotError("cut off")}
    answer = desk(monkeypatch, **broken).carry_out(Walk(home, "work", (packet,)))

    assert isinstance(answer, dict)
    assert answer["missing"] == {"net": "cut off"}
    assert [way["destination"] for way in answer["ways"]] == [str(work + 1)]

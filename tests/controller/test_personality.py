# SPDX-License-Identifier: GPL-2.0-or-later
"""Personalities of third parties are found, and cannot harm those that are ours."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controller.personality import BUILT_IN, GROUP, Personality, known

KIND = """
from controller.personality import Personality
GOOD = Personality("{word}", "brought_program")
ODD = 7
"""
Bring = Callable[..., None]


@pytest.fixture
def bring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bring]:
    """Install a distribution that brings personalities."""

    def put(word: str, *names: str, more: str = "") -> None:
        (tmp_path / "brought_kind.py").write_text(KIND.format(word=word) + more)
        info = tmp_path / "brought-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Name: brought\nVersion: 1\n")
        lines = [f"{name.lower()} = brought_kind:{name}" for name in names]
        (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines]))
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "brought_kind", raising=False)
        known.cache_clear()

    yield put
    known.cache_clear()


def test_what_a_distribution_names_is_known(bring: Bring) -> None:
    bring("brought", "GOOD")

    assert known()["brought"] == Personality("brought", "brought_program")
    assert set(BUILT_IN) <= set(known().values())


def test_nobody_replaces_one_of_ours(bring: Bring) -> None:
    bring("tor", "GOOD")

    assert known()["tor"] is Personality.TOR


@pytest.mark.parametrize("name", ["MISSING", "ODD"])
def test_one_that_is_broken_is_told_and_left_out(
    bring: Bring, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    bring("brought", name, "GOOD")

    assert "brought" in known()
    assert f"personality {name.lower()}: " in caplog.text


@pytest.mark.parametrize(
    "mistake", ["1 +", "no_such_name", 'Personality("x", "y", of_tomorrow=1)', "{}[1]"]
)
def test_one_that_cannot_be_read_costs_nobody_anything(
    bring: Bring, mistake: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One for another version of Ravelin is such a one."""
    bring("brought", "GOOD", more=mistake)

    assert set(known().values()) == set(BUILT_IN)
    assert "personality good: " in caplog.text

# SPDX-License-Identifier: GPL-2.0-or-later
"""The pages that show the layers show every folder that has code."""

import tomllib

import pytest

from tests.docs.pages import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = PROJECT["tool"]["importlinter"]["root_packages"]


@pytest.mark.parametrize(
    "page", ["CONTRIBUTING.md", "docs/explanation/architecture.md"]
)
def test_every_folder_of_the_contract_is_in_the_picture(page: str) -> None:
    rows = [x for x in (ROOT / page).read_text().splitlines() if x.startswith("| `")]

    assert [f for f in FOLDERS if not any(f"`{f}/`" in row for row in rows)] == []

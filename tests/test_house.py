# SPDX-License-Identifier: GPL-2.0-or-later
"""The house rules that no linter knows.

Limits: a module is at most 250 lines, a function at most 50; every folder is in
the layer picture; every outside library is imported in exactly one module; no
file names a path or host of one machine.
"""

import ast
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "rules",
    "agent",
    "proof",
    "netvm",
    "firewallvm",
    "torvm",
    "vpn",
    "controller",
)
MODULES = sorted(p for name in PACKAGES for p in (ROOT / name).rglob("*.py"))
OUTSIDE = {"pyroute2", "nftables", "dbus", "dns", "tomlkit", "scapy", "stem"}
GRAB_BAGS = {"utils", "helpers", "common", "manager", "core", "misc"}


def tracked() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [ROOT / line for line in listing.splitlines() if (ROOT / line).is_file()]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_fits_in_one_head(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 250


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_function_fits_on_one_screen(path: Path) -> None:
    functions = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]

    too_long = [f.name for f in functions if (f.end_lineno or 0) - f.lineno >= 50]

    assert too_long == []


def test_every_folder_with_code_is_in_the_layer_picture() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())
    pictured = set(contracts["tool"]["importlinter"]["root_packages"])
    with_code = {path.parent.name for path in ROOT.glob("*/__init__.py")}

    assert with_code == pictured == set(PACKAGES)


def test_each_outside_library_is_imported_in_one_module() -> None:
    importers: dict[str, set[str]] = defaultdict(set)
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Import(names=names):
                    found = [alias.name for alias in names]
                case ast.ImportFrom(module=str(module), level=0):
                    found = [module]
                case _:
                    found = []
            for name in found:
                importers[name.partition(".")[0]].add(str(path.relative_to(ROOT)))
    ours = set(PACKAGES) | set(sys.stdlib_module_names)

    assert {name for name in importers if name not in ours} <= OUTSIDE
    assert {
        name: sorted(paths)
        for name, paths in importers.items()
        if name in OUTSIDE and len(paths) > 1
    } == {}


def test_no_module_is_a_grab_bag() -> None:
    assert [path for path in MODULES if path.stem in GRAB_BAGS] == []


def test_every_source_file_names_its_licence() -> None:
    sources = [p for p in tracked() if p.suffix == ".py"]

    assert [
        p
        for p in sources
        if "SPDX-License-Identifier: GPL-2.0-or-later" not in p.read_text()[:200]
    ] == []


def test_no_file_names_a_place_of_one_machine() -> None:
    # Built from parts, or this file would name them too.
    places = ["/" + "work/", "/" + "root/", "pypi" + ".org", "deb.debian" + ".org"]
    texts = {
        path: path.read_text(errors="replace")
        for path in tracked()
        if path.suffix not in {".png", ".svg"}
    }

    assert [
        (str(path.relative_to(ROOT)), place)
        for path, text in texts.items()
        for place in places
        if place in text
    ] == []

# SPDX-License-Identifier: GPL-2.0-or-later
"""The tutorial works: its files and commands give the output that it shows.

``…`` on the page stands for any text, and progress may come in between.
"""

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.service import sweep
from tests.docs.pages import ROOT, Block, blocks

pytestmark = pytest.mark.kernel

PAGE = ROOT / "docs/tutorial/first-firewall.md"
PROGRESS = re.compile(
    r"ravelin: (starting|stopping|linking|unlinking|judging|comparing|asking) .*"
)
DEADLINE = 60  # seconds for one command


@pytest.fixture
def runtime() -> Iterator[Path]:
    # Not below a directory of pytest: the path of a unix socket is short.
    with tempfile.TemporaryDirectory(prefix="rv-tutorial-", dir="/run") as made:
        yield Path(made)
        sweep(Path(made))


@pytest.fixture
def environment(runtime: Path, tmp_path: Path) -> dict[str, str]:
    """A shell whose ``ravelin`` has a runtime directory of its own."""
    words = {
        "ravelin": f'exec {ROOT}/bin/ravelin --socket {runtime}/admin.sock "$@"',
        "sudo": 'exec "$@"',
    }
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in words.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(tmp_path), "LANG": "C.UTF-8"}


def steps(block: Block) -> Iterator[tuple[str, list[str]]]:
    """Yield each command of a block with the lines the page shows under it."""
    command, shown = "", list[str]()
    for line in [*block.body.splitlines(), "$ "]:
        if line.startswith("$ "):
            if command:
                yield command, shown
            command, shown = line.removeprefix("$ "), []
        else:
            shown.append(line)


def test_every_step_of_the_tutorial_does_what_it_says(
    environment: dict[str, str], tmp_path: Path, runtime: Path
) -> None:
    for block in blocks(PAGE):
        kind, _, file = block.info.partition(" ")
        if file:
            (tmp_path / file).write_text(block.body)
        if kind != "console":
            continue
        for command, shown in steps(block):
            said = ran(command, environment, tmp_path)
            pattern = re.escape("\n".join(shown)).replace("…", ".*")
            assert re.fullmatch(pattern, said), f"$ {command}\n{said}"

    assert list((runtime / "ns").iterdir()) == []


def ran(command: str, environment: dict[str, str], where: Path) -> str:
    done = subprocess.run(
        ["/bin/bash", "-c", command],
        cwd=where,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    lines = (line.rstrip() for line in done.stdout.splitlines())
    return "\n".join(line for line in lines if not PROGRESS.fullmatch(line))

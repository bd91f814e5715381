# SPDX-License-Identifier: GPL-2.0-or-later
"""`make install` puts a whole Ravelin below DESTDIR, and uninstall takes it away."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from controller.completion import completion
from controller.verbs import SHELLS, VERSION

ROOT = Path(__file__).parents[2]
PACKAGES = [path.parent for path in ROOT.glob("*/__init__.py")]
OLD = "lib/ravelin/rules/old.py"
COMPLETIONS = {
    "bash": "share/bash-completion/completions/ravelin",
    "fish": "share/fish/vendor_completions.d/ravelin.fish",
    "zsh": "share/zsh/vendor-completions/_ravelin",
}


def make(target: str, where: Path, *words: str) -> None:
    command = ["make", "--silent", target, f"DESTDIR={where}", *words]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)


def files(where: Path) -> list[str]:
    found = (path for path in where.rglob("*") if path.is_symlink() or path.is_file())
    return sorted(str(path.relative_to(where)) for path in found)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a /usr with an older version, and this one put over it."""
    where = tmp_path_factory.mktemp("root")
    old = where / "usr" / OLD
    old.parent.mkdir(parents=True)
    old.touch()
    make("install", where)
    return where / "usr"


def test_the_command_runs_from_where_it_was_put(installed: Path) -> None:
    words = [str(installed / "bin/ravelin"), "--version"]
    said = subprocess.run(
        words, cwd="/", check=True, capture_output=True, text=True, timeout=60
    )

    assert said.stdout == f"ravelin {VERSION}\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_is_closed_is_one_that_leads_nowhere(closed: str) -> None:
    """Else a file that is opened next is taken for it."""
    words = ["sh", "-c", f'exec "$0" completion bash {closed}', ROOT / "bin/ravelin"]

    said = subprocess.run(words, check=False, capture_output=True, timeout=60)

    assert (said.returncode, said.stderr) == (0, b"")


def test_every_module_is_a_file_of_its_own(installed: Path) -> None:
    program = installed / "lib/ravelin"
    ours = {
        str(module.relative_to(ROOT))
        for package in PACKAGES
        for module in package.rglob("*.py")
    }

    found = {str(path.relative_to(program)) for path in program.rglob("*.py")}

    assert found == ours | {"__main__.py"}
    assert [path for path in program.rglob("*") if path.is_symlink()] == []


def test_the_programs_of_the_units_are_there(installed: Path) -> None:
    """What is no program is answered with a list of those there are."""
    words = ["/usr/bin/python3", "-I", str(installed / "lib/ravelin"), "none"]
    said = subprocess.run(words, check=False, capture_output=True, text=True)
    known = set(re.split(r"[ |]", said.stderr))

    for unit in (installed / "lib/systemd/system").glob("*.service"):
        start = next(
            line for line in unit.read_text().splitlines() if line.startswith("ExecSta")
        )
        python, isolated, program, name, *_ = start.partition("=")[2].split()

        assert (python, isolated, program) == (
            "/usr/bin/python3",
            "-I",
            "/usr/lib/ravelin",
        )
        assert name in known


def test_the_users_and_places_of_daemons_are_there(installed: Path) -> None:
    for kind in ("sysusers.d", "tmpfiles.d"):
        text = (installed / "lib" / kind / "ravelin.conf").read_text()
        assert text == (ROOT / "packaging" / kind / "ravelin.conf").read_text()


def test_what_a_unit_has_besides_is_there(installed: Path) -> None:
    name = "ravelin-daemon@tor.service.d/stop.conf"

    text = (installed / "lib/systemd/system" / name).read_text()

    assert text == (ROOT / "packaging/systemd" / name).read_text()


def test_another_prefix_is_in_the_units_too(tmp_path: Path) -> None:
    make("install", tmp_path, "PREFIX=/usr/local")

    units = list((tmp_path / "usr/local/lib/systemd/system").glob("*.service"))
    assert len(units) == 5
    assert all("-I /usr/local/lib/ravelin " in unit.read_text() for unit in units)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_completion_is_what_the_command_prints(installed: Path, shell: str) -> None:
    text = (installed / COMPLETIONS[shell]).read_text()

    assert text == "\n".join(completion(shell)) + "\n"


def test_the_manual_page_can_be_read(installed: Path) -> None:
    page = installed / "share/man/man8/ravelin.8"

    shown = subprocess.run(
        ["man", "--local-file", page],
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "MANPAGER": "cat"},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert "RAVELIN(8)" in shown.stdout
    assert shown.stderr == ""


def test_what_an_older_version_had_is_gone(installed: Path) -> None:
    assert (installed / OLD).parent.is_dir()
    assert not (installed / OLD).exists()


def test_uninstall_takes_everything_and_nothing_else(
    installed: Path, tmp_path: Path
) -> None:
    shutil.copytree(installed, tmp_path / "usr", symlinks=True)
    (tmp_path / "usr/bin/other").touch()
    assert len(files(tmp_path)) > 100

    make("uninstall", tmp_path)

    assert files(tmp_path) == ["usr/bin/other"]

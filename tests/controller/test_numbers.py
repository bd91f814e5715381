# SPDX-License-Identifier: GPL-2.0-or-later
"""A domain keeps its number for life, and no other domain ever gets it."""

import json
import os
from pathlib import Path

import pytest

from controller import durable
from controller.addresses import MAX_ID
from controller.numbers import REST, Numbers


def test_what_is_kept_is_known_to_the_next_daemon(tmp_path: Path) -> None:
    Numbers(tmp_path).keep({"net": 1, "work": 5})
    again = Numbers(tmp_path)
    again.keep({"other": 6})

    assert Numbers(tmp_path).known() == {"net": 1, "work": 5, "other": 6}
    assert (tmp_path / "numbers.json").stat().st_mode & 0o777 == 0o600


def test_what_is_known_already_is_not_written_again(tmp_path: Path) -> None:
    numbers = Numbers(tmp_path)
    numbers.keep({"net": 1, "work": 5})
    (tmp_path / "numbers.json").unlink()

    numbers.keep({"work": 5})

    assert not (tmp_path / "numbers.json").exists()


CORRUPT = {
    "empty": "",
    "cut short": '{"qids": {"net": 1',
    "a list": "[]",
    "no qids": "{}",
    "qids are a list": '{"qids": [1]}',
    "a qid is text": '{"qids": {"net": "1"}}',
    "a qid is true": '{"qids": {"net": true}}',
    "a qid is 0": '{"qids": {"net": 0}}',
    "a qid is too large": '{"qids": {"net": 10000}}',
    "two names, one qid": '{"qids": {"net": 1, "work": 1}}',
    "dispids are a list": '{"qids": {}, "dispids": []}',
    "not UTF-8": "\udcff",
}


@pytest.mark.parametrize("text", CORRUPT.values(), ids=CORRUPT)
def test_a_corrupt_file_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "numbers.json"
    file.write_bytes(text.encode(errors="surrogateescape"))

    with pytest.raises(ValueError, match=r"numbers\.json: "):
        Numbers(tmp_path)
    assert file.read_bytes() == text.encode(errors="surrogateescape")


def test_a_file_from_before_there_were_dispids_is_fine(tmp_path: Path) -> None:
    (tmp_path / "numbers.json").write_text('{"qids": {"net": 1}}')

    assert Numbers(tmp_path).known() == {"net": 1}


def test_a_crash_between_write_and_rename_leaves_the_old_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = Numbers(tmp_path)
    numbers.keep({"net": 1})

    def crash(*_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as broken:
        broken.setattr(durable.os, "fsync", crash)
        with pytest.raises(OSError, match="no space"):
            numbers.keep({"work": 5})

    assert Numbers(tmp_path).known() == numbers.known() == {"net": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["numbers.json"]
    numbers.keep({"work": 5})
    assert Numbers(tmp_path).known() == {"net": 1, "work": 5}


def test_what_an_earlier_crash_left_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / ".numbers.json.new").write_text("half")

    Numbers(tmp_path).keep({"net": 1})

    assert Numbers(tmp_path).known() == {"net": 1}


def test_a_dispid_is_none_that_is_taken_and_none_of_the_last_week(
    tmp_path: Path,
) -> None:
    now = 1_000_000.0
    free = {1, 2, 3}
    taken = {*range(1, MAX_ID + 1)} - free
    numbers = Numbers(tmp_path, lambda: now)

    drawn = {numbers.dispid(taken), numbers.dispid(taken)}
    again = Numbers(tmp_path, lambda: now + REST - 1)
    drawn.add(again.dispid(taken))

    assert drawn == free
    # Rather an old address than no disposable; but never one that is in use.
    assert again.dispid(taken | {1, 2}) == 3
    with pytest.raises(OSError, match="no free number"):
        again.dispid(range(1, MAX_ID + 1))


def test_a_dispid_rests_for_a_week_and_is_forgotten_then(tmp_path: Path) -> None:
    now = 1_000_000.0
    taken = range(3, MAX_ID + 1)
    first = Numbers(tmp_path, lambda: now).dispid(taken)
    second = Numbers(tmp_path, lambda: now + REST - 1).dispid(taken)
    assert {first, second} == {1, 2}

    third = Numbers(tmp_path, lambda: now + REST).dispid(taken)

    assert third == first
    tree = json.loads((tmp_path / "numbers.json").read_text())
    assert tree["dispids"].keys() == {"1", "2"}


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o640])
def test_a_file_keeps_its_mode_and_its_owner(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "policy.toml"
    file.write_text("old")
    os.chown(file, 1234, 4321)
    file.chmod(mode)

    durable.replace(file, "new ü")

    now = file.stat()
    assert (now.st_uid, now.st_gid, now.st_mode & 0o777) == (1234, 4321, mode)
    assert file.read_bytes() == "new ü".encode()


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real, link = tmp_path / "real" / "home.toml", tmp_path / "policy.toml"
    real.write_text("old")
    link.symlink_to(real)

    durable.replace(link, "new")

    assert link.is_symlink()
    assert real.read_text() == "new"


def test_nothing_is_written_through_a_link_that_was_laid_as_a_trap(
    tmp_path: Path,
) -> None:
    victim, file = tmp_path / "victim", tmp_path / "policy.toml"
    victim.write_text("precious")
    file.write_text("old")
    (tmp_path / ".policy.toml.new").symlink_to(victim)

    durable.replace(file, "new")

    assert (victim.read_text(), file.read_text()) == ("precious", "new")
    assert not file.is_symlink()

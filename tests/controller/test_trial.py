# SPDX-License-Identifier: GPL-2.0-or-later
"""What nobody has confirmed does not outlive the controller."""

from pathlib import Path

import pytest

from controller.trial import Before, Trial


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "home.toml"
    made.write_text("after")
    return made


def begun(file: Path) -> Trial:
    trial = Trial(file.parent)
    trial.begin(Before(file, "before\n# é"))
    return trial


def test_a_controller_that_starts_again_puts_the_policy_file_back(file: Path) -> None:
    begun(file)

    assert Trial(file.parent).put_back() == file.parent / "not-confirmed.toml"
    assert file.read_text() == "before\n# é"
    assert (file.parent / "not-confirmed.toml").read_text() == "after"
    assert Trial(file.parent).before is None


def test_what_was_confirmed_stays(file: Path) -> None:
    trial = begun(file)
    trial.run(60)
    trial.end()

    assert (trial.left(), trial.before) == (None, None)
    assert Trial(file.parent).put_back() is None
    assert file.read_text() == "after"


def test_the_seconds_left_never_go_below_none(file: Path) -> None:
    now = [100.0]
    trial = Trial(file.parent, lambda: now[0])
    assert trial.left() is None

    trial.run(60)
    now[0] = 130.0
    assert (trial.left(), trial.deadline) == (30.0, 160.0)
    now[0] = 200.0
    assert trial.left() == 0.0


def test_a_policy_file_that_is_gone_comes_back_where_its_directory_is(
    tmp_path: Path,
) -> None:
    begun(tmp_path / "home.toml")
    Trial(tmp_path).put_back()
    assert (tmp_path / "home.toml").read_text() == "before\n# é"

    trial = Trial(tmp_path)
    trial.begin(Before(tmp_path / "gone" / "home.toml", "before"))
    trial.put_back()
    assert Trial(tmp_path).before is None


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"file": "x"}', '{"file": 1, "text": ""}']
)
def test_what_cannot_be_read_is_an_error_that_names_the_file(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "before-trial.json").write_text(text)

    with pytest.raises(ValueError, match=r"before-trial\.json: "):
        Trial(tmp_path)

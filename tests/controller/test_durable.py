# SPDX-License-Identifier: GPL-2.0-or-later
"""A file that could not be written is the old one, and named."""

import errno
import os
from pathlib import Path

import pytest

from controller import durable


def test_a_disk_that_is_full_leaves_the_old_text_and_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "home.toml"
    file.write_text("old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(OSError, match=str(file)):
        durable.replace(file, "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [
        ("home.toml", "old")
    ]

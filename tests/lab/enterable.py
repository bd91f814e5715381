# SPDX-License-Identifier: GPL-2.0-or-later
"""A directory of a test that users without rights come to."""

from pathlib import Path


def enterable(directory: Path) -> None:
    """Let everybody into a directory just below ``tmp_path``, and take nothing away.

    Those above, which pytest makes for root alone, are let into as well; one of them
    may be everybody's, such as /tmp.
    """
    for each in (directory, *directory.parents[:3]):
        each.chmod(each.stat().st_mode | 0o055)

# SPDX-License-Identifier: GPL-2.0-or-later
"""An agent is nobody else, whoever runs on this machine already."""

import grp
import pwd
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller.launches import UIDS
from controller.platforms.users import unused
from controller.ports import PlatformError

pytestmark = pytest.mark.kernel

FIRST, SECOND = UIDS[-2:]  # what starts at the other end does not come here


@contextmanager
def running(*rights: str) -> Iterator[None]:
    """Have a process of somebody else, which is there on entry."""
    with subprocess.Popen(
        ["/usr/bin/setpriv", *rights, "cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"\n"
        yield
        process.stdin.close()


@pytest.mark.parametrize(
    "rights",
    [
        (f"--reuid={FIRST}", "--clear-groups"),
        (f"--ruid={FIRST}", "--clear-groups"),
        (f"--regid={FIRST}", "--clear-groups"),
        (f"--groups={FIRST}",),
    ],
    ids=["user", "real user", "group", "further group"],
)
def test_a_number_that_a_process_has_is_passed_over(rights: tuple[str, ...]) -> None:
    assert unused((FIRST, SECOND)) == FIRST
    with running(*rights):
        assert unused((FIRST, SECOND)) == SECOND
    assert unused((FIRST, SECOND)) == FIRST


def test_a_number_that_has_a_name_is_passed_over() -> None:
    accounts = [each.pw_uid for each in pwd.getpwall()]
    groups = [each.gr_gid for each in grp.getgrall()]

    assert unused((*accounts, *groups, FIRST)) == FIRST


def test_nobody_is_somebody_if_there_is_no_other() -> None:
    with pytest.raises(PlatformError, match="is somebody already"):
        unused((0, 65534))


def test_the_range_is_nobodys_by_the_settings_of_this_system() -> None:
    """Whatever adduser, useradd and systemd give away is outside."""
    lines = Path("/etc/login.defs").read_text().splitlines()
    words = [line.split() for line in lines if line and not line.startswith("#")]
    ends = {name: int(value) for name, value, *_ in words if value.isdecimal()}

    assert max(ends["UID_MAX"], 65535) < UIDS.start
    assert min(ends["SUB_UID_MIN"], 524288) >= UIDS.stop

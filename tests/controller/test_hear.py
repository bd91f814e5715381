# SPDX-License-Identifier: GPL-2.0-or-later
"""A program that is not trusted is heard for a while, and to some length."""

import os
import select
from pathlib import Path

import pytest

from controller.hear import hear

PATIENCE = 20.0  # seconds; only a failing test waits that long


def shell(script: str, *, within: float = PATIENCE) -> tuple[int, bytes]:
    return hear(["/bin/sh", "-c", script], within=within, longest=1000)


def test_what_a_program_prints_is_heard_with_its_exit_status() -> None:
    assert shell("printf abc; exec >&-; exit 7") == (7, b"abc")
    assert shell("kill -9 $$") == (-9, b"")
    assert shell("cat; echo unheard >&2") == (0, b"")  # its stdin is nothing


def test_as_many_bytes_as_are_wished_are_heard_and_no_more() -> None:
    assert shell("head -c 1000 /dev/zero")[1] == bytes(1000)
    with pytest.raises(OSError, match="more than 1000 bytes"):
        shell("head -c 1001 /dev/zero")
    with pytest.raises(OSError, match="more than 1000 bytes"):
        shell("cat /dev/zero")


@pytest.mark.parametrize("script", ["{0}", "exec >/dev/null; {0}", "{0} & wait"])
def test_who_does_not_end_is_not_waited_for(script: str) -> None:
    with pytest.raises(TimeoutError, match="no answer in time"):
        shell(script.format("tail -f /dev/null"), within=0.1)


def test_who_is_heard_no_more_is_ended_with_all_that_it_has_started(
    tmp_path: Path,
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    held = f"exec 3>{pipe}; echo here >&3; tail -f /dev/null & cat /dev/zero"

    with pytest.raises(OSError, match="more than 1000 bytes"):
        shell(held)

    assert os.read(reader, 100) == b"here\n"
    gone = select.poll()
    gone.register(reader, select.POLLHUP)  # nobody has the other end any more
    assert gone.poll(PATIENCE * 1000)
    os.close(reader)

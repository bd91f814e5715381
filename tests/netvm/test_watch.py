# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever way a file comes to read differently, the watch wakes its reader."""

import select
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netvm.watch import Watch


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """/etc/resolv.conf -> ../run/dns/stub.conf, and /run a link itself."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "var/run/dns").mkdir(parents=True)
    (tmp_path / "run").symlink_to(tmp_path / "var/run")
    (tmp_path / "var/run/dns/stub.conf").write_text("old")
    (tmp_path / "etc/resolv.conf").symlink_to("../run/dns/stub.conf")
    return tmp_path


@pytest.fixture
def watch(etc: Path) -> Iterator[Watch]:
    watch = Watch(etc / "etc/resolv.conf")
    yield watch
    watch.close()


def woken(watch: Watch) -> bool:
    readable, _, _ = select.select([watch], [], [], 0)
    return bool(readable)


def in_place(etc: Path) -> None:
    (etc / "run/dns/stub.conf").write_text("new")


def by_rename(etc: Path) -> None:
    (etc / "run/dns/.new").write_text("new")
    (etc / "run/dns/.new").rename(etc / "run/dns/stub.conf")


def removed(etc: Path) -> None:
    (etc / "run/dns/stub.conf").unlink()


def link_replaced_by_file(etc: Path) -> None:
    (etc / "etc/resolv.conf").unlink()
    (etc / "etc/resolv.conf").write_text("new")


def other_directory(etc: Path) -> None:
    (etc / "var/run/dns").rename(etc / "var/run/gone")


def other_link_on_the_way(etc: Path) -> None:
    (etc / "elsewhere/dns").mkdir(parents=True)
    (etc / "elsewhere/dns/stub.conf").write_text("new")
    (etc / "run").unlink()
    (etc / "run").symlink_to("elsewhere")


CHANGES = [
    in_place,
    by_rename,
    removed,
    link_replaced_by_file,
    other_directory,
    other_link_on_the_way,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_wakes(
    watch: Watch, etc: Path, change: Callable[[Path], None]
) -> None:
    assert not woken(watch)

    change(etc)

    assert woken(watch)
    assert watch.handle()
    assert not woken(watch)


def test_a_new_target_is_watched_in_turn(watch: Watch, etc: Path) -> None:
    other_link_on_the_way(etc)
    watch.handle()

    (etc / "elsewhere/dns/stub.conf").write_text("newer")

    assert woken(watch)


def test_a_file_whose_directories_come_later_wakes(tmp_path: Path) -> None:
    path = tmp_path / "run/systemd/resolve/resolv.conf"
    watch = Watch(path)

    for step in (*reversed(path.parents[:3]), None):
        if step:
            step.mkdir()
        else:
            path.write_text("new")
        assert woken(watch)
        watch.handle()

    path.write_text("newer")
    assert woken(watch)
    watch.close()


def test_links_in_a_circle_do_not_hold_it_up(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    watch = Watch(tmp_path / "a")

    (tmp_path / "b").unlink()

    assert woken(watch)
    watch.close()

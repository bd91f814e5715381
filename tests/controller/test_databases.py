# SPDX-License-Identifier: GPL-2.0-or-later
"""What an agent writes is taken for what it is, and forgotten with it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from controller import said
from controller.databases import MAX_TEXT, Databases, Status, status
from controller.keys import MAX_VALUE, contents
from tests.controller.fake_world import CountingSelector, World, a_world, home

STATUS = b"generation=7 hash=0123456789abcdef state=up clients=2 waiting=1"
WORK = "10.137.0.5"


@pytest.fixture
def databases(tmp_path: Path) -> Iterator[Databases]:
    with CountingSelector() as selector:
        found = Databases(selector, tmp_path)
        found.open("fw", -1)
        found.fill(contents(home(), {}, now=0))
        yield found
        found.close("fw")
        assert not selector.get_map()


def test_a_status_is_read_as_it_is_written() -> None:
    assert status(STATUS) == Status(7, "0123456789abcdef", "up", 2, 1)


@pytest.mark.parametrize(
    "untrusted_value",
    [
        b"",
        b"\xff" * 3071,
        STATUS + b"\n",
        STATUS.replace(b"up", b"UP"),
        STATUS.replace(b"7", b"-7"),
        STATUS.replace(b"7", "\N{ARABIC-INDIC DIGIT SEVEN}".encode()),
        STATUS.replace(b"7", b"9" * 13),
        STATUS.replace(b"clients=2", b"clients=100000"),
        STATUS + b" more=1",
    ],
    ids=lambda value: repr(value[:60]),
)
def test_what_is_no_status_is_none(untrusted_value: bytes) -> None:
    assert status(untrusted_value) is None


def test_nobody_is_there_before_it_is_opened(databases: Databases) -> None:
    assert databases.names() == ("fw",)
    assert databases.status("net") is None
    assert databases.errors("net") == {}
    assert not databases.heard("net")
    databases.silent("net")
    databases.close("net")


def test_a_list_is_heard_when_the_agent_says_so_and_not_when_it_takes_it_back(
    databases: Databases,
) -> None:
    six = "fd09:24ef:4179::a89:5"
    assert not databases.heard("fw")
    databases._heard("fw", f"/qubes-firewall-handled/{WORK}", None)
    databases._heard("fw", f"/qubes-firewall-handled/{six}", b"1")
    assert not databases.heard("fw")

    databases._heard("fw", f"/qubes-firewall-handled/{WORK}", b"1")
    assert databases.heard("fw")

    databases.fill(contents(home(), {}, now=0))
    assert databases.heard("fw")  # nothing was written


def test_a_client_that_is_gone_is_neither_waited_for_nor_talked_about(
    databases: Databases,
) -> None:
    databases._heard("fw", f"/ravelin/error/{WORK}", b"why")
    databases.fill(contents(home(work=None), {}, now=0))

    assert databases.heard("fw")
    assert databases.errors("fw") == {}


REMOVALS = ["/ravelin/error/10.137.0.5", "/ravelin/error/"]


@pytest.mark.parametrize("path", REMOVALS)
def test_an_error_stays_until_the_agent_removes_it(
    databases: Databases, path: str
) -> None:
    databases._heard(
        "fw", f"/ravelin/error/{WORK}", b"too \x1b[31mlong\xff" + b"x" * 999
    )
    text = databases.errors("fw")[WORK]
    assert text.startswith("too ?[31mlong?xx")
    assert len(text) == MAX_TEXT

    databases._heard("fw", path, None)
    assert databases.errors("fw") == {}


def test_names_are_known_for_each_client_and_never_cut_short(
    databases: Databases,
) -> None:
    many = " ".join(f"192.0.2.{n}" for n in range(200))
    assert len(many) < MAX_VALUE
    databases._heard("fw", f"/dns/{WORK}/www.example.com", many.encode())
    databases._heard("fw", f"/dns/{WORK}/other.example.com", b"not an address")

    assert len(said.names(databases)["www.example.com"]) == 200
    assert "other.example.com" not in said.names(databases)

    for number in range(2):
        value = f"long.example.com 198.51.100.{number} 2001:db8::{number}".encode()
        databases._heard("fw", f"/dns/{WORK}/@0123456789ab.{number}", value)
    assert len(said.names(databases)["long.example.com"]) == 4

    databases._heard("fw", f"/dns/{WORK}/", None)
    assert said.names(databases) == {}


def test_an_agent_says_nothing_of_names_in_the_rules_of_others(
    databases: Databases,
) -> None:
    """It would mislead what is said of domains that it has no part in."""
    databases._heard("fw", "/dns/10.137.0.99/www.example.com", b"198.51.100.1")
    databases._heard("fw", f"/dns/{WORK}/www.example.com", b"192.0.2.1")

    (found,) = said.names(databases)["www.example.com"]
    assert str(found) == "192.0.2.1"


@pytest.mark.parametrize(
    ("untrusted", "shown"),
    [
        ("config:5: PostUp: no", "provider.conf:5: PostUp: no"),
        ("config", "provider.conf"),
        ("auth:1: no", "auth:1: no"),
        ("192.0.2.1:51820: no handshake", "192.0.2.1:51820: no handshake"),
        (f"{WORK}, 10.137.0.6: too many", "work, personal: too many"),
    ],
)
def test_files_and_clients_are_called_what_people_call_them(
    untrusted: str, shown: str
) -> None:
    names = {"config": "provider.conf", WORK: "work", "10.137.0.6": "personal"}

    assert said._named(names, untrusted) == shown


def test_what_an_agent_said_ends_with_it(databases: Databases) -> None:
    databases._heard("fw", "/ravelin/status", STATUS)
    databases._heard("fw", f"/ravelin/error/{WORK}", b"why")
    databases._heard("fw", f"/dns/{WORK}/www.example.com", b"192.0.2.1")
    assert databases.status("fw") is not None

    databases.silent("fw")

    assert databases.status("fw") is None
    assert databases.errors("fw") == {}
    assert said.names(databases) == {}


def test_the_next_agent_finds_nothing_that_the_last_one_said(
    databases: Databases,
) -> None:
    """Or it would not say it again, and nobody would hear it."""
    store = databases._open["fw"].store
    below = (f"error/{WORK}", "report/summary", "trouble")
    words = [*(f"/ravelin/{each}" for each in below), f"/dns/{WORK}/www.example.com"]
    for path in words:
        store.write(path, b"words")

    databases.silent("fw")

    assert [path for path in words if store.read(path) is not None] == []


def test_only_what_differs_is_written(tmp_path: Path) -> None:
    with a_world(tmp_path) as world:
        world.become(home())
        events: list[str] = []
        server = world.databases._open["fw"].server
        write = server.write

        def watched(path: str, data: bytes) -> None:
            events.append(path)
            write(path, data)

        server.write = watched  # type: ignore[method-assign]
        world.deployment.refill()
        assert events == []


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as found:
        yield found


def test_an_agent_of_its_own_socket_reads_what_dom0_wrote(world: World) -> None:
    world.become(home())

    found = world.databases.status("fw")
    assert found is not None
    assert (found.clients, found.state) == (1, "up")
    assert world.databases.path("fw").stat().st_mode & 0o777 == 0o600
    assert world.databases.path("fw").stat().st_uid == world.platform.starts[1].uid

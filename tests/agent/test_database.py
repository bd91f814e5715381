# SPDX-License-Identifier: GPL-2.0-or-later
"""The mirror of QubesDB is what is in QubesDB, and lists change at a commit."""

import logging
from ipaddress import IPv6Address, ip_address
from typing import cast

import pytest

from agent.database import Broken, Database
from agent.programs import NOT_COMMITTED
from agent.qubesdb import Disconnected, QubesDb, RefusedError
from rules.model import Action, ClientPolicy, Policy, Refused
from tests.agent.fakes import FakeDb

A, A6 = "10.137.0.5", "fd09:24ef:4179::a89:5"
ADDRESS = ip_address(A)
RULE = "action=accept dst4=192.0.2.0/24"
HANDLED = f"/qubes-firewall-handled/{A}"
ERROR = f"/ravelin/error/{A}"
STATUS = "/ravelin/status"


@pytest.fixture
def db() -> FakeDb:
    return FakeDb()


@pytest.fixture
def database(db: FakeDb) -> Database:
    return Database(cast("QubesDb", db))


def actions(policy: ClientPolicy) -> list[str]:
    assert isinstance(policy, Policy)
    return [rule.action.value for rule in policy.rules]


def test_a_connection_reads_all_lists(db: FakeDb, database: Database) -> None:
    db.commit(A, RULE)
    db.commit(A6)
    db.put("/qubes-firewall/nonsense/policy", "accept")

    lists = database.connect()

    assert lists.keys() == {ADDRESS, ip_address(A6)}
    assert actions(lists[ADDRESS]) == ["accept"]
    assert lists[ip_address(A6)] == Policy((), Action.DROP)


def test_a_list_changes_at_its_commit_and_not_before(
    db: FakeDb, database: Database
) -> None:
    db.commit(A, RULE)
    database.connect()

    db.put(f"/qubes-firewall/{A}/0001", "action=drop")
    assert database.refresh() == (False, {})
    db.put(f"/qubes-firewall/{A}")

    _, lists = database.refresh()
    assert actions(lists[ADDRESS]) == ["accept", "drop"]
    assert database.lists == lists


def test_one_changed_rule_costs_one_read(db: FakeDb, database: Database) -> None:
    db.commit(A, *[RULE] * 50)
    database.connect()
    db.reads.clear()

    db.put(f"/qubes-firewall/{A}/0007", "action=drop")
    db.put(f"/qubes-firewall/{A}")
    _, lists = database.refresh()

    assert db.reads == [f"/qubes-firewall/{A}/0007"]
    assert actions(lists[ADDRESS])[7] == "drop"


def test_a_list_that_is_written_anew_is_read_at_once(
    db: FakeDb, database: Database
) -> None:
    db.commit(A, *[RULE] * 50)
    database.connect()
    db.reads.clear()

    db.commit(A, "action=drop")
    _, lists = database.refresh()

    assert db.reads == [f"/qubes-firewall/{A}/*"]
    assert actions(lists[ADDRESS]) == ["drop"]


def test_a_rule_that_is_removed_alone_goes(db: FakeDb, database: Database) -> None:
    db.commit(A, RULE, "action=drop")
    database.connect()

    db.drop(f"/qubes-firewall/{A}/0000")
    db.put(f"/qubes-firewall/{A}")

    assert actions(database.refresh()[1][ADDRESS]) == ["drop"]


def test_of_two_commits_that_came_together_the_last_counts(
    db: FakeDb, database: Database
) -> None:
    """The rules between the two commits must not wait for a third."""
    db.commit(A, RULE)
    database.connect()

    db.put(f"/qubes-firewall/{A}/0001", "action=drop")
    db.put(f"/qubes-firewall/{A}")
    db.put(f"/qubes-firewall/{A}/0002", RULE)
    db.put(f"/qubes-firewall/{A}")

    _, lists = database.refresh()
    assert actions(lists[ADDRESS]) == ["accept", "drop", "accept"]


def test_what_comes_during_a_read_is_taken_too(db: FakeDb, database: Database) -> None:
    """Nothing would wake the agent for it."""
    db.commit(A, RULE)
    database.connect()
    db.put("/qubes-ip", "10.137.0.9")
    db.meanwhile = [lambda: db.commit(A, "action=drop")]

    changed, lists = database.refresh()

    assert changed
    assert actions(lists[ADDRESS]) == ["drop"]


def test_after_all_lists_are_removed_nothing_of_them_comes_back(
    db: FakeDb, database: Database
) -> None:
    db.commit(A, RULE, RULE)
    database.connect()

    db.drop("/qubes-firewall/")
    db.put(f"/qubes-firewall/{A}/policy", "drop")
    db.put(f"/qubes-firewall/{A}")

    assert database.refresh()[1] == {ADDRESS: Policy((), Action.DROP)}


@pytest.mark.parametrize("connected", [True, False], ids=["live", "by a reconnect"])
def test_a_list_that_is_gone_is_as_if_never_committed(
    db: FakeDb, database: Database, *, connected: bool
) -> None:
    db.commit(A, RULE)
    database.connect()
    if not connected:
        db.close()

    db.drop(f"/qubes-firewall/{A}/")
    db.drop(f"/qubes-firewall/{A}")

    lists = database.refresh()[1] if connected else database.connect()
    assert lists == {ADDRESS: NOT_COMMITTED}
    assert database.lists == {}


def test_a_list_that_cannot_be_read_is_refused_alone(
    db: FakeDb, database: Database
) -> None:
    db.commit(A, "action=perhaps")
    db.commit(A6, "action=accept")

    lists = database.connect()

    assert isinstance(lists[ADDRESS], Refused)
    assert actions(lists[ip_address(A6)]) == ["accept"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("/qubes-ip", "10.137.0.9"),
        ("/qubes-primary-dns", "10.139.1.1"),
        ("/ravelin/uplink", "eth1"),
        ("/ravelin/vif/vif1.0", f"mac=00:16:3e:5e:6c:00 ip={A}"),
        ("/connected-ips", A),
        ("/connected-ips6", A6),
    ],
)
def test_every_key_is_followed(
    db: FakeDb, database: Database, path: str, value: str
) -> None:
    database.connect()
    before = database.settings

    db.put(path, value)
    assert database.refresh() == (True, {})
    assert database.settings != before
    db.put(path, value)
    assert database.refresh() == (False, {})
    db.drop(path)
    assert database.refresh() == (True, {})
    assert database.settings == before


def test_a_removed_directory_takes_its_keys_along(
    db: FakeDb, database: Database
) -> None:
    for number in (1, 2):
        db.put(f"/ravelin/vif/vif{number}.0", f"mac=00:16:3e:5e:6c:00 ip={A}")
    database.connect()
    before = len(database.settings.clients)

    db.drop("/ravelin/vif/")

    assert database.refresh() == (True, {})
    assert (before, len(database.settings.clients)) == (2, 0)


def test_a_problem_is_logged_once(
    db: FakeDb, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    db.put("/qubes-gateway", "nowhere")
    with caplog.at_level(logging.WARNING):
        database.connect()
        db.put("/qubes-ip", "10.137.0.9")
        database.refresh()

    assert [record.message for record in caplog.records] == [
        "/qubes-gateway: 'nowhere': expected an address"
    ]


def test_an_acknowledgement_counts_on(db: FakeDb, database: Database) -> None:
    """Also after an agent before this one."""
    db.commit(A)
    db.put(HANDLED, "41")
    database.connect()

    database.acknowledge([ADDRESS])
    assert db.told(HANDLED) == "42"
    db.put(HANDLED, "nonsense")
    database.acknowledge([ADDRESS])
    assert db.told(HANDLED) == "1"


def test_what_an_agent_before_this_one_told_is_corrected(
    db: FakeDb, database: Database
) -> None:
    db.put(ERROR, "old")
    db.put(f"/dns/{A}/a.example", "192.0.2.1")
    database.connect()

    database.report(b"state=open", {}, {})

    assert [db.told(p) for p in (ERROR, f"/dns/{A}/a.example")] == [None, None]
    assert db.told(STATUS) == "state=open"


def test_only_what_changed_is_told(db: FakeDb, database: Database) -> None:
    database.connect()
    names = {(ADDRESS, "a.example"): frozenset({ip_address("192.0.2.1")})}
    database.report(b"state=open", {ADDRESS: "why"}, names)
    db.effects.clear()

    database.report(b"state=open", {ADDRESS: "why"}, names)
    assert db.effects == []
    database.report(b"state=blocked", {ADDRESS: "why"}, names)
    assert db.effects == [f"tell {STATUS}"]


def test_a_name_tells_all_its_addresses_in_order(
    db: FakeDb, database: Database
) -> None:
    database.connect()
    found = frozenset(map(ip_address, ("192.0.2.2", "192.0.2.1", "2001:db8::1")))

    database.report(b"", {}, {(ADDRESS, "a.example"): found})

    assert db.told(f"/dns/{A}/a.example") == "192.0.2.1 192.0.2.2 2001:db8::1"


@pytest.mark.parametrize(
    ("error", "told"),
    [("x" * 9999, "x" * 3071), ("caf\N{LATIN SMALL LETTER E WITH ACUTE}", "caf?")],
    ids=["too long", "not ASCII"],
)
def test_any_text_fits_into_an_error(
    db: FakeDb, database: Database, error: str, told: str
) -> None:
    database.connect()

    database.report(b"", {ADDRESS: error}, {})

    assert db.told(ERROR) == told


@pytest.mark.parametrize("error", ["a\0b"], ids=["a NUL"])
def test_what_no_qubesdb_takes_is_left_out(
    db: FakeDb, database: Database, error: str
) -> None:
    database.connect()

    database.report(b"state=open", {ADDRESS: error}, {})

    assert db.told(ERROR) is None
    assert db.told(STATUS) == "state=open"


MANY = frozenset(IPv6Address("2001:db8::1:0:0:0") + n for n in range(1024))
LONG = ".".join(("a" * 60, "b" * 60, "c" * 60, "example.com"))


@pytest.mark.parametrize("address", [A, A6])
def test_what_does_not_fit_of_a_name_is_told_in_several_values(
    db: FakeDb, database: Database, address: str
) -> None:
    """Neither a long name nor one of its many addresses is cut."""
    database.connect()
    client = ip_address(address)

    names = {(client, LONG): frozenset({ADDRESS}), (client, "a.example"): MANY}
    database.report(b"", {}, names)

    told: dict[str, set[str]] = {}
    for path in db.store.keys("/dns/"):
        assert path.startswith(f"/dns/{address}/@")
        name, *words = str(db.told(path)).split(" ")
        told.setdefault(name, set()).update(words)
    assert told == {LONG: {A}, "a.example": set(map(str, MANY))}
    database.report(b"", {}, {})
    assert db.store.keys("/dns/") == []


def test_a_refusal_of_a_key_is_no_reason_to_stop(
    db: FakeDb, database: Database
) -> None:
    database.connect()

    def full() -> None:
        raise RefusedError("WRITE")

    db.meanwhile = [full]
    database.report(b"state=open", {ADDRESS: "why"}, {})

    assert db.told(STATUS) == "state=open"


@pytest.mark.parametrize("error", [Disconnected("gone"), RefusedError("READ")])
def test_what_ends_a_connection_is_named(
    db: FakeDb, database: Database, error: Exception
) -> None:
    database.connect()
    db.put("/qubes-ip", "10.137.0.9")

    def fail() -> None:
        raise error

    db.meanwhile = [fail]
    with pytest.raises(Broken):
        database.refresh()

# SPDX-License-Identifier: GPL-2.0-or-later
"""Nonsense written into a QubesDB by hand: its client is denied, nobody else is.

An agent may write but a few keys of its own database, so the daemon here is one
that adds to what it writes what a file says: dom0's hand.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.qubesdb import QubesDb, RefusedError
from controller.service import listens
from tests.e2e.machine import (
    HOME,
    HTTPS,
    ROOT,
    RUNTIME,
    WEB4,
    WEB6,
    Machine,
    end,
    machine,
    until,
)

pytestmark = pytest.mark.kernel

HAND = RUNTIME / "hand.json"
DAEMON = """
import json, pathlib, sys
sys.path.insert(0, sys.argv[1])
from controller import keys, service
right, hand = keys.contents, pathlib.Path(sys.argv[2])

def contents(*words, **more):
    found = {name: dict(each) for name, each in right(*words, **more).items()}
    for name, pairs in json.loads(hand.read_text()).items():
        found[name] |= {key: text.encode("latin-1") for key, text in pairs.items()}
    return found

keys.contents = contents
service.serve(["--runtime", str(hand.parent), "--state", str(hand.parent / "state")])
"""


@pytest.fixture(scope="module")
def _running() -> Iterator[Machine]:
    with machine() as made:
        RUNTIME.mkdir(mode=0o700)
        put({})
        argv = ("/usr/bin/python3", "-c", DAEMON, str(ROOT), str(HAND))
        with Path("/run/daemon.log").open("w") as log:
            daemon = subprocess.Popen(argv, stdout=log, stderr=log)
        try:
            until(lambda: listens(RUNTIME / "admin.sock"))
            made.up()
            yield made
            made.does("down")
        finally:
            daemon.kill()
            daemon.wait()


@pytest.fixture
def home(_running: Machine) -> Iterator[Machine]:
    yield _running
    put({})
    _running.policy.write_text(HOME)
    _running.does("apply")
    _running.hang_up()
    assert all(flows(_running, name) for name in ("work", "personal", "untrusted"))


def write(machine: Machine, keys: dict[str, bytes]) -> None:
    """Write into the QubesDB of sys-firewall."""
    pairs = {key: value.decode("latin-1") for key, value in keys.items()}
    put({"sys-firewall": pairs})
    machine.ravelin("apply")


def put(hand: dict[str, dict[str, str]]) -> None:
    """Change the file as a whole: the daemon may read it at any time."""
    fresh = HAND.with_suffix(".new")
    fresh.write_text(json.dumps(hand))
    fresh.replace(HAND)


def flows(machine: Machine, name: str) -> bool:
    return machine.reaches(name, WEB4, HTTPS) and machine.reaches(name, WEB6, HTTPS)


RULES = {
    "no action": b"dst4=198.51.100.80",
    "an address out of range": b"action=accept dst4=10.0.0.256",
    "unknown words": b"action=accept colour=red",
    "bytes that are no text": b"\xff\xfe action=accept",
    "nft text": b'action=accept comment="; flush ruleset',
    "a port out of range": b"action=accept proto=tcp dstports=1-99999",
    "the other family": b"action=accept dst6=2001:db8::/32",
    "nothing": b"",
}


@pytest.mark.parametrize("value", RULES.values(), ids=RULES)
def test_a_malformed_rule_denies_its_client_alone_and_is_named(
    home: Machine, value: bytes
) -> None:
    streams = {name: home.stream(name) for name in ("personal", "untrusted")}
    address = str(home.status()["work"]["ip"])
    assert flows(home, "work")
    write(home, {f"/qubes-firewall/{address}/0001": value})
    assert not home.reaches("work", WEB4, HTTPS)
    assert all(stream.lives() for stream in streams.values())
    assert flows(home, "personal")
    assert flows(home, "untrusted")
    rows = home.status()
    assert "denied" in str(rows["work"]["problem"])
    assert [name for name, row in rows.items() if row["problem"]] == ["work"]
    assert home.ravelin("status").status == 3


def test_a_policy_of_nonsense_denies(home: Machine) -> None:
    address = str(home.status()["work"]["ip"])
    write(home, {f"/qubes-firewall/{address}/policy": b"moon"})
    assert not home.reaches("work", WEB4, HTTPS)
    assert "moon" in str(home.status()["work"]["problem"])
    assert flows(home, "personal")


def test_a_client_that_is_denied_is_named_by_the_next_agent_too(home: Machine) -> None:
    address = str(home.status()["work"]["ip"])
    write(home, {f"/qubes-firewall/{address}/policy": b"moon"})
    before = home.agent("sys-firewall")

    end(before)

    # With it, what it said is forgotten.
    until(lambda: home.agent("sys-firewall") != before)
    until(lambda: "moon" in str(home.status()["work"]["problem"]))
    assert not home.reaches("work", WEB4, HTTPS)
    assert flows(home, "personal")


KEYS = {
    "a vif of nonsense": {"/ravelin/vif/vif77.0": b"mac=x ip=y"},
    "a vif of a bad name": {"/ravelin/vif/eth0": b"mac=00:16:3e:5e:6c:00 ip=10.9.9.9"},
    "an uplink that is not there": {"/ravelin/uplink": b"eth0 moon0"},
    "connected nonsense": {"/connected-ips": b"1.2.3 moon 10.137.0.4"},
    "a resolver of nonsense": {"/qubes-secondary-dns": b"moon"},
    "a long value": {"/connected-ips": b"1 " * 1500},
}


@pytest.mark.parametrize("keys", KEYS.values(), ids=KEYS)
def test_other_malformed_keys_harm_nobody(
    home: Machine, keys: dict[str, bytes]
) -> None:
    stream = home.stream("personal")
    before = home.agent("sys-firewall")
    write(home, keys)
    home.ravelin("firewall", "work", "add", "accept", f"dst4={WEB4}", "tcp", "80-80")
    assert home.reaches("work", WEB4)
    assert stream.lives()
    assert all(flows(home, name) for name in ("work", "personal", "untrusted"))
    assert home.agent("sys-firewall") == before


def test_two_vifs_of_one_address_never_speak_for_each_other(home: Machine) -> None:
    address = str(home.status()["work"]["ip"])
    vifs = home.tool("sys-firewall", "ip", "-br", "link").split()
    other = next(word for word in vifs if word.startswith("vif3."))
    value = f"mac=00:16:3e:5e:6c:00 ip={address}".encode()
    write(home, {f"/ravelin/vif/{other.partition('@')[0]}": value})
    assert not home.reaches("personal", WEB4, HTTPS)
    assert flows(home, "untrusted")


def test_a_domain_cannot_write_its_own_rules(home: Machine) -> None:
    database = QubesDb(str(home.runtime / "db" / "sys-firewall.sock"))
    database.connect()
    for path in ("/qubes-firewall/10.137.0.4/0000", "/ravelin/vif/vif9.0"):
        with pytest.raises(RefusedError):
            database.write(path, b"action=accept")
    database.close()

# SPDX-License-Identifier: GPL-2.0-or-later
"""A profile that cannot be used is said so, and carries nothing; it never crashes."""

import math
from ipaddress import ip_address
from pathlib import Path

import pytest

from rules.facts import Facts, Uplink
from tests.vpn.fake_device import FakeDevice
from tests.vpn.test_wireguard_driver import FACTS, ONE
from vpn import wireguard_start
from vpn.hopeless import Hopeless
from vpn.states import VPN, Progress, Tunnel, observe
from vpn.wireguard_driver import WireguardDriver
from vpn.wireguard_file import MOST_BYTES
from vpn.wireguard_start import NONE, driver


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setattr(wireguard_start, "device", FakeDevice)
    return tmp_path / "config"


def test_a_good_profile_is_driven(credentials: Path) -> None:
    credentials.write_text(ONE)

    assert isinstance(driver(), WireguardDriver)


def test_without_a_profile_there_is_a_reason(credentials: Path) -> None:
    assert not credentials.exists()
    assert driver().trouble() == "config: No such file or directory"


def test_without_credentials_there_is_a_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)

    assert driver().trouble().startswith("config: ")


def test_a_bad_profile_is_named_by_its_line(credentials: Path) -> None:
    credentials.write_text(f"{ONE}PostDown = id\n")

    assert driver().trouble().startswith("config:8: PostDown: ")


def test_a_file_that_never_ends_is_not_read_to_its_end(credentials: Path) -> None:
    credentials.write_bytes(b"#" * (MOST_BYTES * 3))

    assert driver().trouble() == f"config:1: expected at most {MOST_BYTES} bytes"


def test_without_any_wireguard_there_is_a_reason(
    credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials.write_text(ONE)
    monkeypatch.setattr(wireguard_start, "device", lambda: None)

    assert driver().trouble() == NONE


def test_who_has_no_hope_carries_nothing_and_asks_nobody() -> None:
    hopeless = Hopeless("a reason")

    facts = hopeless.facts(FACTS)

    assert observe(facts, hopeless.progress) == observe(FACTS, Progress.HOPELESS)
    assert VPN.step(Tunnel.UP, observe(facts, hopeless.progress)) is Tunnel.ERROR
    assert (facts.carried, facts.tunnel) == (frozenset(), None)
    assert (facts.dns, facts.resolvers) == ({}, frozenset())
    assert hopeless.next_deadline() == math.inf
    assert not hopeless.handle()
    assert hopeless.fileno() == -1
    assert hopeless.report() == {}


def test_another_uplink_gives_no_hope() -> None:
    other = Facts(uplinks=(Uplink("eth1", 3, frozenset({ip_address("192.0.2.9")})),))
    hopeless = Hopeless("a reason")
    hopeless.told({"relays-only": "1"})
    hopeless.follow("error", other)

    assert observe(other, hopeless.progress) == observe(FACTS, Progress.HOPELESS)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Route AppVMs through Tor with the real command, as the how-to does."""

import json
from ipaddress import ip_address, ip_network

import pytest

from tests.e2e.machine import until
from tests.lab.sniffer import TCP, UDP
from tests.lab.tor_network import RETRY
from tests.tor.chain import BRIDGE, CIRCUITS, OTHER, WEB, WEB6, Streams, TorChain

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.filterwarnings("ignore:setDaemon:DeprecationWarning"),
]

VIRTUAL = "@10.139.1.1"


def row(tor: TorChain, name: str = "sys-tor") -> dict[str, object]:
    """Return what ``status --json`` says of a domain, whatever its exit status."""
    answer = tor.ask("status").data
    assert isinstance(answer, dict)
    found: dict[str, object] = next(
        each for each in answer["domains"] if each["name"] == name
    )
    return found


def names(tor: TorChain, client: str, kind: str, name: str) -> list[str]:
    words = ("+short", "+tries=3", "+time=10", VIRTUAL, kind, name)
    said = tor.run(client, "dig", *words).split("\n")
    return [line for line in said if line and line[0] != ";"]  # it was in vain at first


@pytest.mark.parametrize("site", [WEB, WEB6])
def test_a_site_sees_an_exit(tor: TorChain, site: str) -> None:
    assert tor.through("anon", site) in tor.exits


def test_names_are_answered_for_both_ip_versions(tor: TorChain) -> None:
    assert names(tor, "anon", "A", "www.example.com") == [WEB]
    assert names(tor, "anon", "AAAA", "www.example.com") == [WEB6]


def test_an_onion_service_is_reached_like_any_site(tor: TorChain) -> None:
    (address,) = names(tor, "anon", "A", tor.network.onion)

    assert ip_address(address) in ip_network("10.192.0.0/10")
    assert tor.through("anon", address)


def test_the_rules_of_a_client_hold_on_the_address_it_wrote(tor: TorChain) -> None:
    """``picky`` may reach one site by its name, which is asked through Tor."""
    assert names(tor, "picky", "A", "www.example.com") == [WEB]
    assert tor.through("picky", WEB) in tor.exits
    assert tor.fetch("picky", OTHER) == ""
    assert tor.fetch("picky", WEB, 443) == ""
    # The control: who may do everything gets there.
    assert tor.through("anon", OTHER) in tor.exits


def test_status_says_how_far_tor_is(tor: TorChain) -> None:
    found = row(tor)
    report = found["report"]
    assert isinstance(report, dict)

    assert found["state"] == "up"
    assert found["problem"] is None
    assert report["bootstrap"] == "100"
    assert "203.0.113" not in json.dumps(found)


def test_no_log_holds_an_address_of_a_relay_or_a_bridge(tor: TorChain) -> None:
    tor.through("anon")
    logs = "".join(p.read_text() for p in (tor.runtime / "log").glob("sys-tor*"))

    assert logs
    assert "203.0.113." not in logs


def test_with_relays_only_tor_may_talk_to_relays(changed: TorChain) -> None:
    changed.become("relays-only = true")
    assert changed.through("anon") in changed.exits
    listing = ("nft", "list", "set", "netdev", "ravelin-guard", "by_uid4")

    def all_five() -> str:
        # They vote every ten seconds, and one may be missing for once.
        allowed = changed.run("sys-tor", *listing)
        return allowed if allowed.count("203.0.113.") == 5 else ""

    assert BRIDGE[0].compressed not in until(all_five, within=CIRCUITS)


def test_applications_that_know_tor_keep_their_streams_apart(
    changed: TorChain,
) -> None:
    """Two names to authenticate with are two circuits, one name is one.

    A circuit may end by itself in between, so one name has three tries.
    """
    changed.become("socks = true")
    same = False
    with changed.watched() as streams:
        for _ in range(3):
            one, two, again = (by_socks(changed, streams, x) for x in "121")
            assert not one & two
            assert not again & two
            same |= one == again

    assert same


def by_socks(changed: TorChain, streams: Streams, user: str) -> frozenset[str]:
    """Fetch a page as somebody; return the circuits that it took."""
    proxy = f"{user}:x@{changed.ip('sys-tor')[0]}:9050"
    page = "http://www.example.com/ip"
    words = ("--silent", *RETRY, "--socks5-hostname", proxy, page)
    assert changed.run("anon", "curl", *words).strip() in changed.exits
    found = streams.of("anon")
    assert found
    return found


def test_with_a_bridge_the_uplink_carries_what_goes_to_it(changed: TorChain) -> None:
    with changed.uplink() as uplink:
        changed.become('bridges = "tor.bridges"')
        assert changed.through("anon") in changed.exits
    left = {(p.destination, p.port) for p in uplink.packets if p.protocol == TCP}
    # Those of the tor before it end with it.
    late = [p for p in uplink.packets if (p.destination, p.port) == BRIDGE]
    first = uplink.packets.index(late[0])
    after = uplink.packets[first:]

    assert BRIDGE in left
    assert {(p.destination, p.port) for p in after if p.protocol == TCP} == {BRIDGE}
    assert [p for p in after if p.protocol == UDP] == []


def test_a_bridge_line_that_is_not_understood_is_named_and_stops_all(
    changed: TorChain,
) -> None:
    good = (changed.runtime / "tor.bridges").read_text()
    changed.secret("tor.bridges", f"{good}SECRET words\n")
    try:
        changed.become('bridges = "tor.bridges"', state="error")
        found = row(changed)
        assert str(found["problem"]).startswith("tor.bridges:2: expected ADDRESS:PORT")
        assert "SECRET" not in json.dumps(found)
        assert changed.fetch("anon") == ""
    finally:
        changed.secret("tor.bridges", good)


def test_without_an_uplink_that_is_what_status_says(tor: TorChain) -> None:
    tor.run("sys-tor", "ip", "link", "del", "eth0")
    try:
        tor.until("down")
        assert until(lambda: row(tor)["problem"] == "no uplink", within=CIRCUITS)
        assert tor.fetch("anon") == ""
    finally:
        tor.cli("restart", "sys-tor")
    tor.until("up")
    assert tor.through("anon") in tor.exits


def test_a_network_that_refuses_is_what_status_says(tor: TorChain) -> None:
    """Every relay refuses, as seen from a tor that starts."""
    refuse = "table inet blocked { chain in { type filter hook input priority 0; "
    refuse += "ip saddr 192.0.2.2 tcp flags & syn == syn reject with tcp reset; }; }"
    tor.tors_run("nft", refuse)
    try:
        tor.end("/usr/bin/tor")
        assert until(lambda: "stuck at" in str(row(tor)["problem"]), within=CIRCUITS)
    finally:
        tor.tors_run("nft", "delete table inet blocked")
    tor.end("/usr/bin/tor")
    assert tor.through("anon") in tor.exits

# SPDX-License-Identifier: GPL-2.0-or-later
"""What keeps an OpenVPN tunnel from working is named in one line; clients stay shut."""

from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from tests.e2e.machine import RESOLVER4, WEB4, until
from tests.e2e.openvpn_room import POLICY, PORT, Room, room
from tests.e2e.vpn_room import PATIENCE, PROVIDER
from tests.vpn.openvpn_server import profile

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def _room() -> Iterator[Room]:
    with room() as made:
        yield made
        made.machine.does("down")


@pytest.fixture
def made(_room: Room) -> Room:
    """A NetVM alone and a provider; of a test before there is no VPN and no client."""
    _room.clear(POLICY)
    return _room


@pytest.fixture
def expired(made: Room) -> Iterator[Room]:
    """The same, with a server whose certificate has expired."""
    certify(made, "old-server")
    yield made
    certify(made, "server")


def certify(made: Room, name: str) -> None:
    """Start the server anew, with a certificate."""
    made.provider.kill()
    made.provider.cert = name
    made.provider.start()


def closed(made: Room) -> bool:
    return not made.machine.reaches("work", WEB4)


def test_a_bad_profile_is_named_by_its_line(made: Room) -> None:
    made.give_good(more="up /tmp/evil\n")
    made.machine.up()

    made.says(
        "provider.ovpn:4: up runs a program; delete it, DNS and routes are set"
        " without scripts"
    )
    assert made.vpn()["state"] == "error"
    assert closed(made)
    assert made.daemons() == []

    made.give_good()
    made.machine.up()
    until(made.flows, PATIENCE)  # the positive control: it is read anew


def test_an_expired_certificate_and_an_unreachable_server_are_named(
    expired: Room,
) -> None:
    made = expired
    made.give_good()
    made.machine.up()

    where = f"({PROVIDER} port {PORT}/udp)"
    made.says(f"the server's certificate has expired {where}")
    assert made.vpn()["state"] == "connecting"
    assert closed(made)

    made.give_good("192.0.2.200 1194 udp")
    made.machine.up()
    until(lambda: "192.0.2.200" in str(made.vpn()["problem"]), PATIENCE)
    assert closed(made)


def test_keys_and_certificates_that_do_not_fit_are_named(made: Room) -> None:
    """One after the other, by the file alone; a good one then works."""
    good = profile(made.pki, f"{PROVIDER} {PORT} udp")
    theirs, other = made.pki.read("client.key"), made.pki.read("server.key")
    old = profile(made.pki, f"{PROVIDER} {PORT} udp", cert="old-client")
    cases = {
        old: "<cert> expired on 2020-02-01",
        good.replace(theirs, other): "<key> does not belong to <cert>",
        good.replace(made.pki.read("ca.crt"), made.pki.read("client.crt")): (
            "the server's certificate is not of the authority in <ca>"
        ),
    }
    for text, cause in cases.items():
        made.give(text)
        made.machine.up()
        made.says(f"{cause} ({PROVIDER} port {PORT}/udp)")
        assert closed(made)

    made.give(good)
    made.machine.up()
    until(made.flows, PATIENCE)
    made.machine.tool("sys-vpn", "ip", "link", "delete", "eth0")
    made.says("no uplink")
    assert made.vpn()["state"] == "down"
    assert closed(made)


def test_a_name_is_asked_over_the_uplink_only_while_it_must_be(made: Room) -> None:
    questions = made.machine.internet.questions
    before = len(questions.read_text())
    made.machine.internet.set_names({"vpn.example.com": (IPv4Address(PROVIDER),)})
    made.give_good("vpn.example.com 1194 udp")
    made.machine.up()
    until(made.flows, PATIENCE)

    assert "vpn.example.com from 192.0.2." in questions.read_text()[before:]
    rules = made.machine.tool("sys-vpn", "nft", "list", "ruleset")
    assert f"{RESOLVER4} . udp" not in rules


def test_a_false_answer_is_named_and_not_believed(made: Room) -> None:
    """TunnelCrack: an answer in the local network would open a way to it."""
    made.machine.internet.set_names({"vpn.example.com": (IPv4Address("10.200.0.10"),)})
    made.give_good("vpn.example.com 1194 udp")
    made.machine.up()

    made.says(
        "vpn.example.com: 10.200.0.10 is private,"
        " which an answer from outside cannot be"
    )
    assert closed(made)

# SPDX-License-Identifier: GPL-2.0-or-later
"""What keeps an OpenVPN tunnel from working is named in one line; clients stay shut."""

from ipaddress import IPv4Address

import pytest

from tests.e2e.machine import RESOLVER4, WEB4, until
from tests.e2e.openvpn_room import PORT, WITH_LOGIN, Room, room
from tests.e2e.vpn_room import PATIENCE, PROVIDER
from tests.vpn.openvpn_server import PASSWORD, USER, profile

pytestmark = pytest.mark.kernel


def closed(made: Room) -> bool:
    return not made.machine.reaches("work", WEB4)


def test_a_bad_profile_is_named_by_its_line() -> None:
    with room() as made:
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
        made.machine.does("down")


def test_a_wrong_password_is_named_and_the_right_one_works() -> None:
    """Neither is in any file that the product writes."""
    with room(WITH_LOGIN) as made:
        made.provider.kill()
        made.provider.asks_login = True
        made.provider.start()
        made.give_good(more="auth-user-pass\n")
        made.give(f"{USER}\nwrong\n", "login")
        made.machine.up()

        where = f"({PROVIDER} port {PORT}/udp)"
        made.says(f"wrong user name or password {where}")
        assert made.vpn()["state"] == "error"
        assert closed(made)

        made.give(f"{USER}\n{PASSWORD}\n", "login")
        made.machine.up()
        until(made.flows, PATIENCE)
        logs = made.machine.runtime.rglob("*.log")
        assert not [log for log in logs if PASSWORD in log.read_text(errors="replace")]
        made.machine.does("down")


def test_an_expired_certificate_and_an_unreachable_server_are_named() -> None:
    with room() as made:
        made.provider.kill()
        made.provider.cert = "old-server"
        made.provider.start()
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
        made.machine.does("down")


def test_keys_and_certificates_that_do_not_fit_are_named() -> None:
    """One after the other, by the file alone; a good one then works."""
    with room() as made:
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
        made.machine.does("down")


def test_a_name_is_asked_over_the_uplink_only_while_it_must_be() -> None:
    with room() as made:
        made.machine.internet.set_names({"vpn.example.com": (IPv4Address(PROVIDER),)})
        made.give_good("vpn.example.com 1194 udp")
        made.machine.up()
        until(made.flows, PATIENCE)

        asked = made.machine.internet.questions.read_text()
        assert "vpn.example.com from 192.0.2." in asked
        rules = made.machine.tool("sys-vpn", "nft", "list", "ruleset")
        assert f"{RESOLVER4} . udp" not in rules
        made.machine.does("down")


def test_a_false_answer_is_named_and_not_believed() -> None:
    """TunnelCrack: an answer in the local network would open a way to it."""
    with room() as made:
        made.machine.internet.set_names(
            {"vpn.example.com": (IPv4Address("10.200.0.10"),)}
        )
        made.give_good("vpn.example.com 1194 udp")
        made.machine.up()

        made.says(
            "vpn.example.com: 10.200.0.10 is private,"
            " which an answer from outside cannot be"
        )
        assert closed(made)
        made.machine.does("down")


def test_over_tcp_another_server_of_the_profile_is_tried() -> None:
    """The first one is not there; of the two one is reachable at a time."""
    with room(proto="tcp") as made:
        made.give(profile(made.pki, "192.0.2.200 443 tcp", f"{PROVIDER} {PORT} tcp"))
        made.machine.up()

        until(made.flows, PATIENCE * 2)
        rules = made.machine.tool("sys-vpn", "nft", "list", "ruleset")
        assert "192.0.2.200" not in rules
        assert PROVIDER in rules
        made.machine.does("down")

# SPDX-License-Identifier: GPL-2.0-or-later
"""What a provider's file says of its servers, and what status says if it is wrong.

Each test has a machine of its own, and clients stay blocked while anything is wrong.
"""

from ipaddress import IPv4Address

import pytest

from tests.e2e.machine import RESOLVER4, WEB4, until
from tests.e2e.wireguard_room import PATIENCE, PROVIDER, Room, room
from tests.lab.wireguard import Keys, base64

pytestmark = pytest.mark.kernel


def closed(made: Room) -> bool:
    return not made.machine.reaches("work", WEB4)


def test_a_bad_profile_is_named_by_its_line() -> None:
    with room() as made:
        text = made.provider.profile(made.client, PROVIDER, "PostUp = curl evil")
        made.give(text)
        made.machine.up()

        assert made.problem() == (
            "config:5: PostUp: would run a program, which a profile must not;"
            " delete the line"
        )
        assert made.vpn()["state"] == "error"
        assert closed(made)

        made.give_good()
        made.machine.up()
        until(made.flows, PATIENCE)  # the positive control: it is read anew
        made.machine.does("down")


def test_a_wrong_key_and_an_unreachable_server_are_named() -> None:
    with room() as made:
        made.give_good(PublicKey=base64(Keys().public))
        made.machine.up()

        assert "no handshake" in made.problem()
        assert closed(made)

        made.give_good("192.0.2.200")
        made.machine.up()

        until(lambda: str(made.vpn()["problem"]).startswith("192.0.2.200:"), PATIENCE)
        assert closed(made)
        made.machine.does("down")


def test_a_name_is_asked_over_the_uplink_only_while_it_must_be() -> None:
    with room() as made:
        made.machine.internet.set_names({"vpn.example.com": (IPv4Address(PROVIDER),)})
        made.give_good("vpn.example.com")
        made.machine.up()
        until(made.flows, PATIENCE)

        asked = made.machine.internet.questions.read_text()
        assert "vpn.example.com from 192.0.2." in asked
        rules = made.machine.tool("sys-vpn", "nft", "list", "ruleset")
        assert f"{RESOLVER4} . udp" not in rules
        made.machine.does("down")


def test_a_false_or_missing_answer_is_named_and_not_believed() -> None:
    """TunnelCrack: an answer in the local network would open a way to it."""
    with room() as made:
        made.machine.internet.set_names(
            {"vpn.example.com": (IPv4Address("10.200.0.10"),)}
        )
        made.give_good("vpn.example.com")
        made.machine.up()

        assert made.problem() == (
            "vpn.example.com: 10.200.0.10 is private,"
            " which an answer from outside cannot be"
        )
        assert closed(made)

        made.give_good("nowhere.example.com")
        made.machine.up()
        until(lambda: str(made.vpn()["problem"]).startswith("nowhere."), PATIENCE)
        made.machine.does("down")


def test_another_server_of_the_profile_is_tried() -> None:
    with room() as made:
        other = base64(Keys().public)
        dead = f"[Peer]\nPublicKey = {other}\nAllowedIPs = 0.0.0.0/0\n"
        dead += "Endpoint = 192.0.2.200:51820\n"
        text = made.provider.profile(made.client, PROVIDER)
        made.give(text.replace("[Peer]\n", f"{dead}[Peer]\n", 1))
        made.machine.up()

        until(made.flows, PATIENCE)
        made.machine.does("down")

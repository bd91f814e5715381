# SPDX-License-Identifier: GPL-2.0-or-later
"""A VPN's server may have a name: whom it is asked of, and what is not believed."""

from ipaddress import IPv4Address

import pytest

from tests.e2e import openvpn_room, wireguard_room
from tests.e2e.machine import RESOLVER4, until
from tests.e2e.vpn_room import PATIENCE, PROVIDER, VpnRoom

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.parametrize(
        "_room",
        [openvpn_room.room, wireguard_room.room],
        indirect=True,
        ids=["openvpn", "wireguard"],
    ),
]

NAME = "vpn.example.com"


def give(made: VpnRoom, name: str, *answers: str) -> None:
    """Have a profile whose server has a name, and a network that answers so."""
    known = {name: tuple(map(IPv4Address, answers))} if answers else {}
    made.machine.internet.set_names(known)
    made.give_good(made.AT.format(name))
    made.machine.up()


def test_a_name_is_asked_over_the_uplink_only_while_it_must_be(made: VpnRoom) -> None:
    questions = made.machine.internet.questions
    before = len(questions.read_text())
    give(made, NAME, PROVIDER)
    until(made.flows, PATIENCE)

    assert f"{NAME} from 192.0.2." in questions.read_text()[before:]
    rules = made.machine.tool("sys-vpn", "nft", "list", "ruleset")
    assert f"{RESOLVER4} . udp" not in rules


def test_a_false_or_missing_answer_is_named_and_not_believed(made: VpnRoom) -> None:
    """TunnelCrack: an answer in the local network would open a way to it."""
    give(made, NAME, "10.200.0.10")
    made.says(f"{NAME}: 10.200.0.10 is private, which an answer from outside cannot be")
    assert made.closed()

    give(made, "nowhere.example.com")
    until(lambda: str(made.vpn()["problem"]).startswith("nowhere."), PATIENCE)

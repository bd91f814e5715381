# SPDX-License-Identifier: GPL-2.0-or-later
"""What a provider's file says of its servers, and what status says if it is wrong.

Each test has a VPN and clients of its own, which stay blocked while anything is wrong.
"""

import pytest

from tests.e2e.machine import until
from tests.e2e.vpn_room import PATIENCE, PROVIDER, SECRET_NAME
from tests.e2e.wireguard_room import IN_TUNNEL, Room, room
from tests.lab.wireguard import Keys, base64

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.parametrize("_room", [room], indirect=True, ids=["wireguard"]),
]


def test_a_bad_profile_is_named_by_its_line(made: Room) -> None:
    text = made.provider.profile(made.client, PROVIDER, "PostUp = curl evil")
    made.give(text)
    made.machine.up()

    made.says(
        "provider.conf:5: PostUp: would run a program, which a profile must not;"
        " delete the line"
    )
    assert made.vpn()["state"] == "error"
    assert made.closed()

    made.give_good()
    made.machine.up()
    until(made.flows, PATIENCE)  # the positive control: it is read anew


def test_a_wrong_key_and_an_unreachable_server_are_told_apart(made: Room) -> None:
    """Both are silent, but where nothing is, the network says so by ICMP."""
    made.give_good(PublicKey=base64(Keys().public))
    made.machine.up()

    silent = "no handshake: not reachable, or a key is wrong on one side"
    made.says(f"{PROVIDER}:51820: {silent}")
    assert made.closed()

    unreachable = "no handshake: the network says that it cannot be reached"
    made.give_good("192.0.2.200")  # where no host is
    says(made, f"192.0.2.200:51820: {unreachable}")

    made.provider.port += 1000  # where the host listens not
    made.give_good()
    made.provider.port -= 1000
    says(made, f"{PROVIDER}:52820: {unreachable}")

    tool = ["ip", "link", "delete", "eth0"]
    made.machine.tool("sys-vpn", *tool)
    made.says("no uplink")
    assert made.vpn()["state"] == "down"


def says(made: Room, problem: str) -> None:
    """Take in the profile, and wait for what status then says."""
    made.machine.up()
    made.says(problem)
    assert made.vpn()["state"] == "connecting"
    assert made.closed()


def test_another_server_of_the_profile_is_tried(made: Room) -> None:
    other = base64(Keys().public)
    dead = f"[Peer]\nPublicKey = {other}\nAllowedIPs = 0.0.0.0/0\n"
    dead += "Endpoint = 192.0.2.200:51820\n"
    text = made.provider.profile(made.client, PROVIDER)
    made.give(text.replace("[Peer]\n", f"{dead}[Peer]\n", 1))
    made.machine.up()

    until(made.flows, PATIENCE)


def test_names_in_rules_are_asked_through_the_tunnel(made: Room) -> None:
    """What a name stands for is what the provider says, not what the network does."""
    made.give_good()
    made.machine.up()
    until(made.flows, PATIENCE)

    rule = (f"dsthost={SECRET_NAME}", "proto=tcp", "dstports=80")
    made.machine.does("firewall", "personal", "add", "accept", *rule)

    until(lambda: made.seen_from("personal") == IN_TUNNEL, PATIENCE)
    assert SECRET_NAME not in made.machine.internet.questions.read_text()

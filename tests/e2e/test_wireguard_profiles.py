# SPDX-License-Identifier: GPL-2.0-or-later
"""What a provider's file says of its servers, and what status says if it is wrong.

Each test has a machine of its own, and clients stay blocked while anything is wrong.
"""

import socket
import threading
from ipaddress import IPv4Address

import pytest

from controller import namespaces
from tests.e2e.machine import ECHO, RESOLVER4, WEB4, WEB6, becomes, until
from tests.e2e.vpn_room import PATIENCE, PROVIDER, SECRET_NAME
from tests.e2e.wireguard_room import IN_TUNNEL, Room, room
from tests.lab.wireguard import Keys, base64

pytestmark = pytest.mark.kernel


def closed(made: Room) -> bool:
    return not made.machine.reaches("work", WEB4)


def test_a_bad_profile_is_named_by_its_line() -> None:
    with room() as made:
        text = made.provider.profile(made.client, PROVIDER, "PostUp = curl evil")
        made.give(text)
        made.machine.up()

        made.says(
            "provider.conf:5: PostUp: would run a program, which a profile must not;"
            " delete the line"
        )
        assert made.vpn()["state"] == "error"
        assert closed(made)

        made.give_good()
        made.machine.up()
        until(made.flows, PATIENCE)  # the positive control: it is read anew
        made.machine.does("down")


def test_a_wrong_key_and_an_unreachable_server_are_told_apart() -> None:
    """Both are silent, but where nothing is, the network says so by ICMP."""
    with room() as made:
        made.give_good(PublicKey=base64(Keys().public))
        made.machine.up()

        silent = "no handshake: not reachable, or a key is wrong on one side"
        made.says(f"{PROVIDER}:51820: {silent}")
        assert closed(made)

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
        made.machine.does("down")


def says(made: Room, problem: str) -> None:
    """Take in the profile, and wait for what status then says."""
    made.machine.up()
    made.says(problem)
    assert made.vpn()["state"] == "connecting"
    assert closed(made)


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

        made.says(
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


def test_ipv6_is_carried_if_the_provider_gives_it() -> None:
    """Without, clients have none: the tests of leaks send it all the while."""
    with room() as made:
        made.provider.tell(
            "set=1",
            f"public_key={made.client.public.hex()}",
            "update_only=true",
            "allowed_ip=fd64::2/128",
        )
        made.in_internet("ip address add fd64::1/64 dev wgs0 nodad")
        made.give_good(Address=f"{IN_TUNNEL}/32, fd64::2/128")
        made.machine.up()
        until(made.flows, PATIENCE)

        assert made.seen_from("work", f"http://[{WEB6}]/") == "fd64::2"
        made.machine.does("down")


def test_a_way_that_becomes_narrow_is_found_and_bulk_goes_on() -> None:
    """X7: the uplink's next link takes 1380 bytes; segments fit in both directions."""
    with room() as made:
        made.give_good()
        made.machine.up()
        until(made.flows, PATIENCE)
        assert report(made)["mtu"] == "1440"

        made.in_internet("ip link set lan mtu 1380")
        made.in_internet("ip link set netvm2 mtu 1380")
        made.machine.tool("sys-net", *["ip", "link", "set", "eth0", "mtu", "1380"])

        assert echoed(made, 1_000_000) == 1_000_000
        becomes(lambda: report(made)["mtu"], "1312", PATIENCE)
        assert echoed(made, 1_000_000) == 1_000_000
        made.machine.does("down")


def report(made: Room) -> dict[str, str]:
    found = made.vpn()["report"]
    assert isinstance(found, dict)
    return found


def echoed(made: Room, size: int) -> int:
    """Send so many bytes to the echo and return how many came back."""
    with namespaces.inside(made.machine.net("work")):
        opened = socket.create_connection((WEB4, ECHO), timeout=PATIENCE)
    with opened:
        sender = threading.Thread(target=opened.sendall, args=(bytes(size),))
        sender.start()
        found = 0
        while found < size and (data := opened.recv(65536)):
            found += len(data)
        sender.join()
    return found


def test_names_in_rules_are_asked_through_the_tunnel() -> None:
    """What a name stands for is what the provider says, not what the network does."""
    with room() as made:
        made.give_good()
        made.machine.up()
        until(made.flows, PATIENCE)

        rule = (f"dsthost={SECRET_NAME}", "proto=tcp", "dstports=80")
        made.machine.does("firewall", "personal", "add", "accept", *rule)

        until(lambda: made.seen_from("personal") == IN_TUNNEL, PATIENCE)
        assert SECRET_NAME not in made.machine.internet.questions.read_text()
        made.machine.does("down")

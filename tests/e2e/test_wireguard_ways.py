# SPDX-License-Identifier: GPL-2.0-or-later
"""What a tunnel of WireGuard carries, by which provider and over which network.

Each has a room of its own, whose provider or network it changes.
"""

import socket
import threading

import pytest

from controller import namespaces
from tests.e2e.machine import ECHO, WEB4, WEB6, becomes, until
from tests.e2e.vpn_room import PATIENCE
from tests.e2e.wireguard_room import IN_TUNNEL, Room, room

pytestmark = pytest.mark.kernel


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

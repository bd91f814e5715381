# SPDX-License-Identifier: GPL-2.0-or-later
"""What keeps an OpenVPN tunnel from working is named in one line; clients stay shut."""

from collections.abc import Iterator

import pytest

from tests.e2e.machine import until
from tests.e2e.openvpn_room import PORT, Room, room
from tests.e2e.vpn_room import PATIENCE, PROVIDER
from tests.vpn.openvpn_server import profile

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.parametrize("_room", [room], indirect=True, ids=["openvpn"]),
]


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


def test_a_bad_profile_is_named_by_its_line(made: Room) -> None:
    made.give_good(more="up /tmp/evil\n")
    made.machine.up()

    made.says(
        "provider.ovpn:4: up runs a program; delete it, DNS and routes are set"
        " without scripts"
    )
    assert made.vpn()["state"] == "error"
    assert made.closed()
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
    assert made.closed()

    made.give_good("192.0.2.200 1194 udp")
    made.machine.up()
    until(lambda: "192.0.2.200" in str(made.vpn()["problem"]), PATIENCE)
    assert made.closed()


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
        assert made.closed()

    made.give(good)
    made.machine.up()
    until(made.flows, PATIENCE)
    made.machine.tool("sys-vpn", "ip", "link", "delete", "eth0")
    made.says("no uplink")
    assert made.vpn()["state"] == "down"
    assert made.closed()

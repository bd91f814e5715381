# SPDX-License-Identifier: GPL-2.0-or-later
"""A server of OpenVPN that wants a login, and one over TCP; each has its own room."""

import pytest

from tests.e2e.machine import until
from tests.e2e.openvpn_room import PORT, WITH_LOGIN, room
from tests.e2e.vpn_room import PATIENCE, PROVIDER
from tests.vpn.openvpn_server import PASSWORD, USER, profile

pytestmark = pytest.mark.kernel


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
        assert made.closed()

        made.give(f"{USER}\n{PASSWORD}\n", "login")
        made.machine.up()
        until(made.flows, PATIENCE)
        logs = made.machine.runtime.rglob("*.log")
        assert not [log for log in logs if PASSWORD in log.read_text(errors="replace")]
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

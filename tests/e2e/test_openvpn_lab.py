# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's OpenVPN provider: certificates or passwords, IPv4 and IPv6."""

import pytest

from controller.lab.provider import Provider
from tests.e2e.machine import machine, until
from tests.e2e.vpn_room import OUTSIDE, PATIENCE

pytestmark = pytest.mark.kernel

POLICY = f"""{OUTSIDE}
[domains.sys-vpn]
personality = "openvpn"
netvm = "sys-net"
config = "provider.ovpn"

[domains.work]
netvm = "sys-vpn"
"""
WITH_LOGIN = POLICY.replace("provider.ovpn", 'provider.ovpn"\nauth = "login')
SEEN = "http://{}.example.com/ip"


@pytest.mark.parametrize("policy", [POLICY, WITH_LOGIN], ids=["keys", "login"])
def test_sites_see_the_provider_in_both_ip_versions(policy: str) -> None:
    with machine(OUTSIDE) as made:
        made.up()
        made.policy.write_text(policy)
        sites = Provider(made.internet, lambda _: None).furnish(made.policy)
        made.up()
        until(lambda: made.status()["sys-vpn"]["state"] == "up", PATIENCE)

        pages = (SEEN.format(x) for x in ("v4only", "v6only"))
        seen = {until(lambda x=x: made.curl_plain("work", x).out) for x in pages}

        (exits,) = sites["sys-vpn"].values()
        assert seen == {f"{address}\n" for address in exits}
        made.does("down")

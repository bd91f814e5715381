# SPDX-License-Identifier: GPL-2.0-or-later
"""OpenVPN works behind Tor, over TCP, and behind another OpenVPN."""

import pytest

from controller.lab.openvpn_server import (
    AUTH,
    TCP,
    UDP,
    UDP_PASSWORD,
    Kind,
    OpenVpnServer,
    profile,
)
from controller.lab.provider import Provider
from tests.e2e.machine import Machine, machine, until
from tests.e2e.vpn_room import OUTSIDE
from tests.lab.sniffer import EVERY, Sniffer

pytestmark = pytest.mark.kernel

PATIENCE = 120.0  # seconds; Tor takes its time
SEEN = "http://v4only.example.com/ip"
BEHIND_TOR = f"""{OUTSIDE}
[domains.sys-tor]
personality = "tor"
netvm = "sys-net"
network = "network"

[domains.sys-vpn]
personality = "openvpn"
netvm = "sys-tor"
config = "provider.ovpn"

[domains.work]
netvm = "sys-vpn"
"""


IN_ANOTHER = f"""{OUTSIDE}
[domains.sys-outer]
personality = "openvpn"
netvm = "sys-net"
config = "outer.ovpn"

[domains.sys-vpn]
personality = "openvpn"
netvm = "sys-outer"
config = "provider.ovpn"
auth = "login"

[domains.work]
netvm = "sys-vpn"
"""


def give(made: Machine, name: str, text: str) -> None:
    """Put a file beside the policy, as a user would."""
    file = made.policy.parent / name
    file.touch(mode=0o600)
    file.write_text(text)


def provider(made: Machine, name: str, kind: Kind) -> OpenVpnServer:
    """Start a server, and give what its provider hands out."""
    server = OpenVpnServer(made.internet.hosts, kind)
    server.up()
    give(made, name, profile(server))
    return server


def seen_from_work(made: Machine) -> str:
    """Whom a site takes the AppVM for, once it gets there."""
    until(lambda: made.status()["sys-vpn"]["state"] == "up", PATIENCE)
    return until(lambda: made.curl_plain("work", SEEN).out, PATIENCE).strip()


def test_over_tcp_it_works_behind_tor() -> None:
    """A site sees the provider, which sees a relay of Tor."""
    with machine(OUTSIDE) as made:
        made.up()
        made.policy.write_text(BEHIND_TOR)
        Provider(made.internet, lambda _: None).furnish(made.policy)
        server = provider(made, "provider.ovpn", TCP)
        made.up()

        assert seen_from_work(made) == str(server.host.exits[0])
        made.does("down")


def test_one_tunnel_carries_another() -> None:
    """A site sees the inner provider, and the first uplink only the outer one."""
    with machine(OUTSIDE) as made:
        made.up()
        made.policy.write_text(IN_ANOTHER)
        outer = provider(made, "outer.ovpn", UDP)
        inner = provider(made, "provider.ovpn", UDP_PASSWORD)
        give(made, "login", AUTH)
        made.up()

        with Sniffer(made.net("sys-net"), EVERY) as seen:
            assert seen_from_work(made) == str(inner.host.exits[0])

        sent = [p for p in seen.packets if p.interface[:3] == "vif" and not p.outgoing]
        to = {p.destination for p in sent if not p.neighbourly}
        assert to == {outer.host.exits[0]}
        made.does("down")

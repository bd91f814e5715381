# SPDX-License-Identifier: GPL-2.0-or-later
"""Where an attack takes place."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scene:
    """Who is where: addresses and MACs as text.

    ``gateway`` is the NetVM as its clients know it, ``uplink`` as its LAN does;
    ``other`` is a second client, ``server`` a host beyond ``router``.
    """

    client: str
    client6: str
    gateway: str
    gateway6: str
    server: str
    server6: str
    other: str = "10.137.0.7"
    other6: str = "fd09:24ef:4179::a89:7"
    uplink: str = "192.0.2.2"
    uplink6: str = "2001:db8:1::2"
    uplink_mac: str = "02:00:00:00:00:02"
    router: str = "192.0.2.1"
    router6: str = "2001:db8:1::1"
    neighbour: str = "192.0.2.66"
    neighbour6: str = "2001:db8:1::66"
    neighbour_mac: str = "02:00:00:00:00:66"
    client_mac: str = "00:16:3e:5e:6c:00"
    gateway_mac: str = "fe:ff:ff:ff:ff:ff"

# SPDX-License-Identifier: GPL-2.0-or-later
"""The judge on the wires of a chain, which sees them from their far ends.

``middle`` is sys-firewall's eth0 seen from sys-net, ``outer`` is sys-net's eth0
seen from the internet.
"""

from ipaddress import ip_address
from typing import Self

from tests.lab.sniffer import DRAIN, EVERY, Packet, Sniffer
from tests.leaks.chain import Chain

# What the NetVM calls its own on the lab's LAN (`controller.platforms.lab`).
NETVM_OWN = frozenset(
    map(
        ip_address,
        ("192.0.2.2", "2001:db8:1::2", "fe80::2", "fe80::ff:fe00:2", "::"),
    )
)

NETVM_MAC = "02:00:00:00:00:02"


class Wires:
    """Both uplinks; what is on them belongs to the gateways, or has leaked."""

    def __init__(self, chain: Chain, drain: float = DRAIN) -> None:
        self._own = frozenset(chain.ip("sys-firewall"))
        self._middle = Sniffer(chain.net("sys-net"), EVERY, drain=drain)
        self._outer = Sniffer(chain.internet.net, EVERY, drain=drain)

    def __enter__(self) -> Self:
        self._middle.__enter__()
        self._outer.__enter__()
        return self

    def finish(self) -> None:
        """Begin to end, both at the same time."""
        self._middle.finish()
        self._outer.finish()

    def __exit__(self, *error: object) -> None:
        self.finish()
        self._middle.__exit__(*error)
        self._outer.__exit__(*error)

    @property
    def middle(self) -> list[Packet]:
        """What came out of sys-firewall's uplink."""
        # Of a packet in fragments the kernel writes the next header over the one
        # that was captured (net/ipv4/ip_output.c: ip_do_fragment, its fast path).
        arrived = _arrived(self._middle, "vif")
        return [packet for packet in arrived if packet.mac_source != NETVM_MAC]

    @property
    def outer(self) -> list[Packet]:
        """What came out of sys-net's uplink."""
        return _arrived(self._outer, "netvm")

    @property
    def foreign(self) -> list[Packet]:
        """Frames that do not have the source address of the gateway they left.

        A new link has none yet when it joins its groups.
        """
        return [
            *(p for p in self.middle if p.source not in self._own and not p.joining),
            *(p for p in self.outer if p.source not in NETVM_OWN),
        ]

    @property
    def marked(self) -> list[Packet]:
        """Frames with a probe inside, on either wire."""
        return [packet for packet in (*self.middle, *self.outer) if packet.marked]


def _arrived(sniffer: Sniffer, names: str) -> list[Packet]:
    return [
        packet
        for packet in sniffer.packets
        if not packet.outgoing and packet.interface.startswith(names)
    ]

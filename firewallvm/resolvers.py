# SPDX-License-Identifier: GPL-2.0-or-later
"""The resolvers of a FirewallVM: those that its own netvm offers."""

from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address
from itertools import cycle

from agent.personality import Dns
from rules.model import Address, family

# What clients ask on every platform (qubes/vm/mix/net.py), and its counterpart.
VIRTUAL: tuple[Address, ...] = (
    IPv4Address("10.139.1.1"),
    IPv4Address("10.139.1.2"),
    IPv6Address("fd09:24ef:4179::a8b:1"),
    IPv6Address("fd09:24ef:4179::a8b:2"),
)


class FromDom0:
    """The resolvers that QubesDB names."""

    def dns(self, from_dom0: tuple[Address, ...]) -> Dns:
        """Return the resolvers now."""
        paired: dict[Address, Address] = {}
        for version in {family(address) for address in VIRTUAL}:
            virtual = [a for a in VIRTUAL if family(a) is version]
            real = [a for a in from_dom0 if family(a) is version] or virtual
            paired.update(zip(virtual, cycle(real), strict=False))
        return Dns(paired, from_dom0)

    def watched(self) -> Mapping[int, Callable[[], None]]:
        """Return nothing: QubesDB is watched already."""
        return {}

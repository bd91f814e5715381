# SPDX-License-Identifier: GPL-2.0-or-later
"""The resolvers that every client asks, and which real one stands behind each.

Their IPv4 addresses are those of Qubes OS (``qubes/vm/mix/net.py``); the IPv6
ones are their counterparts, 0xa8b being 10.139.
"""

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address
from itertools import cycle

from rules.model import Address

VIRTUAL4 = (IPv4Address("10.139.1.1"), IPv4Address("10.139.1.2"))
VIRTUAL6 = (
    IPv6Address("fd09:24ef:4179::a8b:1"),
    IPv6Address("fd09:24ef:4179::a8b:2"),
)


def paired(
    virtual: Iterable[Address], real: Iterable[Address]
) -> Mapping[Address, Address]:
    """Return virtual resolver -> real one of the same IP version, as Qubes does.

    With one real resolver all virtual ones lead to it; those beyond stay unused;
    without any there is no pair (``qubes-setup-dnat-to-ns``).
    """
    # cycle() of nothing is empty: no pair at all.
    return dict(zip(virtual, cycle(real), strict=False))

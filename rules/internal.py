# SPDX-License-Identifier: GPL-2.0-or-later
"""What the address plan gives to domains (Qubes OS, ``qubes/vm/mix/net.py``).

None of it ever leaves the machine: a client's packet for another domain is
refused at its gateway, and shown neither to the network nor to a provider.
"""

INTERNAL = frozenset(
    {
        "10.137.0.0/16",
        "10.138.0.0/16",
        "10.139.1.0/24",
        "fd09:24ef:4179::/48",
    }
)

# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast a client may open flows, and who may open none for now.

All clients of a gateway share one connection table, and whoever fills it takes the
network from the others.  Between two looks of the agent (`agent.crowd`) the pace
keeps one client from that; it is far above what a table of this size could keep.

Chains of type nat see the first packet of a flow and no other (nf_nat_inet_fn(),
net/netfilter/nf_nat_core.c), so a packet of a known flow pays nothing.  It is the
hook before routing: what is refused here leaves no entry, wherever it was going.
"""

from rules.objects import EACH_VIF, GUARD

HELD = "type iface_index;"
# In so many seconds without a new flow a burst is earned again (`BURST`, `SECONDS`), so
# what was counted of a client may be forgotten then, and with it one that is gone.
FORGOTTEN = 10
FIRST = -110  # just before dstnat (-100), so before a question is translated

USUAL = 1 << 18
"""Flows, on a machine of more than 4 GB."""
BURST = 8
"""A client may open an eighth of the table at once …"""
SECONDS = 64
"""… and then as many in so many seconds as the table holds.  A TCP flow is kept for
120 s after its end: who goes on like that needs more than there is."""


def pace(table: int) -> str:
    """Return nft text; ``table`` is how many flows the connection table holds."""
    rate, burst = max(1, table // SECONDS), max(1, table // BURST)
    return f"""
add set {GUARD} held {{ {HELD} }}
add set {GUARD} pace {{ {EACH_VIF} timeout {FORGOTTEN}s; }}
add chain {GUARD} opening {{ type nat hook prerouting priority {FIRST}; }}
flush chain {GUARD} opening
add rule {GUARD} opening iif @held counter drop comment "held"
add rule {GUARD} opening iifname "vif*" update @pace \
{{ iif limit rate over {rate}/second burst {burst} packets }} \
counter drop comment "too-fast"
"""

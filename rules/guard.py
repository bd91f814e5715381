# SPDX-License-Identifier: GPL-2.0-or-later
"""The guard: what no state of any personality may ever let pass.

It is loaded before any link is up, and no code deletes it.  It only drops, so
an accept in the public ``custom-`` chains of table ``ip qubes`` is never
honoured here.  Drops go by interface *name*, which a re-created device
inherits; accepts go by interface *index* or group, which an impostor does not.
The group of a vif comes before its name too, for that costs a packet a third of it.

An uplink's IPv4 addresses are in a set, because ``fib daddr . iif`` looks at the
first local route only (``__inet_dev_addr_type``, net/ipv4/fib_frontend.c), and
vifs have the same address.

Loading it again replaces the rules of the chains in one transaction and leaves
the base chains and the sets' elements in place: a base chain that is deleted
and added, even within one transaction, lets packets through.
"""

from rules.facts import CLIENT_GROUP
from rules.objects import ARP_GUARD, EACH_VIF, GUARD, SELDOM

NETDEV_GUARD = "netdev ravelin-guard"

# Priority: before conntrack puts fragments together (-400), whoever they come from: a
# piece with another sender's address would become part of what that one sends or is
# answered (nf_defrag_ipv4.c knows no interfaces).  And just before filter (0), so
# before anybody's accept.
EARLY = -450
BEFORE_FILTER = -10

CLIENTS4 = "typeof iif . ether saddr . ip saddr;"
CLIENTS6 = "typeof iif . ether saddr . ip6 saddr;"
ADDRESSES4 = "type ipv4_addr;"
ADDRESSES6 = "type ipv6_addr;"
ARP_CLIENTS = "typeof iif . arp saddr ether . arp saddr ip;"
OWN4 = "typeof oif . ip saddr;"
OWN6 = "typeof oif . ip6 saddr;"
HERE4 = "typeof iif . ip daddr;"
ADOPTED = "type iface_index;"
# A sender of a link-local address is a neighbour that the kernel remembers; it has room
# for 1024 of all links, and keeps whom it heard of within 5 seconds
# (neigh_forced_gc(), net/core/neighbour.c).
NEAR = f"{EACH_VIF} timeout 1m;"
SELDOM_NEAR = f"update @near {SELDOM}"
# An ICMP error is of the flow that it quotes, whoever sends it.
OF_OTHERS = 'counter drop comment "error-of-others"'

GUARD_TEXT = f"""
add table {GUARD}
add set {GUARD} clients4 {{ {CLIENTS4} }}
add set {GUARD} clients6 {{ {CLIENTS6} }}
add set {GUARD} addresses4 {{ {ADDRESSES4} }}
add set {GUARD} addresses6 {{ {ADDRESSES6} }}
add set {GUARD} here4 {{ {HERE4} }}
add set {GUARD} near {{ {NEAR} }}
add chain {GUARD} from-vif
add chain {GUARD} odd
add chain {GUARD} prerouting {{ type filter hook prerouting priority {EARLY}; }}
add chain {GUARD} input {{ type filter hook input priority {BEFORE_FILTER}; }}
add chain {GUARD} forward {{ type filter hook forward priority {BEFORE_FILTER}; }}
add chain {GUARD} output {{ type filter hook output priority {BEFORE_FILTER}; }}
flush chain {GUARD} from-vif
flush chain {GUARD} odd
flush chain {GUARD} prerouting
flush chain {GUARD} input
flush chain {GUARD} forward
flush chain {GUARD} output
add rule {GUARD} from-vif iif . ether saddr . ip saddr @clients4 accept
add rule {GUARD} from-vif iif . ether saddr . ip6 saddr @clients6 accept
add rule {GUARD} from-vif ip6 saddr {{ ::, fe80::/10 }} ip6 hoplimit 255 \
icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit }} \
{SELDOM_NEAR} return
add rule {GUARD} from-vif ip saddr 0.0.0.0 ip daddr 255.255.255.255 \
udp sport 68 udp dport 67 return
add rule {GUARD} from-vif ip6 saddr fe80::/10 ip6 daddr ff02::1:2 \
udp sport 546 udp dport 547 return
add rule {GUARD} from-vif counter drop comment "spoof"
add rule {GUARD} prerouting iifgroup {CLIENT_GROUP} goto from-vif
add rule {GUARD} prerouting iif . ip daddr @here4 ip saddr != @addresses4 accept
add rule {GUARD} prerouting iifname "vif*" goto from-vif
add rule {GUARD} prerouting iifname "lo" accept
add rule {GUARD} prerouting ip saddr @addresses4 counter drop comment "spoof-upstream"
add rule {GUARD} prerouting ip6 saddr @addresses6 counter drop comment "spoof-upstream"
add rule {GUARD} prerouting fib daddr . iif type != {{ local, broadcast, multicast }} \
counter drop comment "strong-host"
add rule {GUARD} input ct state invalid counter drop comment "in-invalid"
add rule {GUARD} odd ct state invalid,untracked counter drop comment "fwd-invalid"
add rule {GUARD} odd iifname "vif*" ct direction original \
iif . ether saddr . ct original ip saddr != @clients4 {OF_OTHERS}
add rule {GUARD} odd iifname "vif*" ct direction original \
iif . ether saddr . ct original ip6 saddr != @clients6 {OF_OTHERS}
add rule {GUARD} forward ct state invalid,untracked,related jump odd
add rule {GUARD} forward ip hdrlength != 5 counter drop comment "ip-options"
add rule {GUARD} forward iifgroup {CLIENT_GROUP} accept
add rule {GUARD} forward oifgroup != {CLIENT_GROUP} counter drop comment "transit"
add rule {GUARD} forward ct direction original ct status & dnat == 0 \
counter drop comment "into-client"
add rule {GUARD} output ct state invalid counter drop comment "out-invalid"
add table {ARP_GUARD}
add set {ARP_GUARD} clients {{ {ARP_CLIENTS} }}
add chain {ARP_GUARD} input {{ type filter hook input priority 0; }}
flush chain {ARP_GUARD} input
add rule {ARP_GUARD} input iifname "vif*" \
iif . arp saddr ether . arp saddr ip != @clients counter drop comment "arp-spoof"
add table {NETDEV_GUARD}
add set {NETDEV_GUARD} own4 {{ {OWN4} }}
add set {NETDEV_GUARD} own6 {{ {OWN6} }}
add set {NETDEV_GUARD} adopted {{ {ADOPTED} }}
"""


def uplink_guard(device: str) -> str:
    """Return the nft text of the egress guard of one uplink device.

    Hook ``egress`` of family netdev sees every frame that leaves the device,
    those of packet sockets and forwarded ones too: only this domain's own
    source addresses pass, and where somebody else gives the addresses the
    questions of a DHCP client that has none yet (RFC 2131, 4.1).  ``device`` is
    an interface name of at most 15 bytes that is a valid nft identifier.
    """
    chain = f"{NETDEV_GUARD} egress-{device}"
    return f"""
add chain {chain} {{ type filter hook egress device "{device}" priority 0; \
policy drop; }}
flush chain {chain}
add rule {chain} oif . ip saddr @own4 accept
add rule {chain} oif . ip6 saddr @own6 accept
add rule {chain} oif @adopted ip saddr 0.0.0.0 ip daddr 255.255.255.255 \
udp sport 68 udp dport 67 accept
add rule {chain} ether type arp oif . arp saddr ip @own4 accept
add rule {chain} counter comment "egress-drop"
"""

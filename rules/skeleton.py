# SPDX-License-Identifier: GPL-2.0-or-later
"""The constant rules of a domain that provides network.

Only the contents of the sets and maps named here ever change, so a state is
data that can be read back and compared.  The tables are ``ip qubes`` and
``ip6 qubes``, and the first rule of input and of forward jumps to the chain
that Qubes reserves for its users (``qubes-ipv4.nft``): an accept there ends
the chain, and with it our rules.

There is no blanket ``ct state established accept``.  Packets of the original
direction are judged by the rules each time; replies pass only between the two
interfaces that the flow belongs to.  Within a rule the cheap questions come first:
a look into a set of all clients costs most.
"""

from dataclasses import dataclass
from textwrap import dedent

from rules.flows import ADDRESSES, OWN_NAMES, OWN_TRAFFIC, PING
from rules.objects import EACH_VIF, IP, IP6, SELDOM

INDEXES = "type iface_index;"
ASKING = f"{EACH_VIF} timeout 1m;"
ASKED = f"update @asking {SELDOM}"
OFTEN = "update @pinging { iif limit rate 100/second }"
OWN = "type iface_index : verdict;"

# Ours to flush; custom-input and custom-forward belong to the user.
BASE_CHAINS = ("dstnat", "srcnat", "input", "forward", "output")
CHAINS = (*BASE_CHAINS, "replies", "refuse", "own-traffic", "own-names", "into-daemon")


@dataclass(frozen=True, slots=True)
class Words:
    """How one IP version spells what both tables say."""

    table: str
    ip: str
    address: str
    icmp: str
    errors: str
    link_local_input: str
    link_local_output: str
    asked: str
    told: str

    @property
    def behind(self) -> str:
        """The declaration of set ``behind``: vif and address of each client."""
        return f"typeof oif . {self.ip} daddr;"

    @property
    def sources(self) -> str:
        """The declaration of set ``sources``: the same, as the sender."""
        return f"typeof iif . {self.ip} saddr;"

    @property
    def clients(self) -> str:
        """The declaration of map ``clients``: sender to its rules."""
        return f"typeof iif . {self.ip} saddr : verdict;"

    @property
    def dns(self) -> str:
        """The declaration of map ``dns``: virtual resolver to real one."""
        return f"typeof {self.ip} daddr : {self.ip} daddr;"

    @property
    def here(self) -> str:
        """The declaration of set ``here``: our addresses towards clients."""
        return f"type {self.address};"

    @property
    def addresses(self) -> str:
        """The declaration of a set of prefixes."""
        return f"type {self.address}; flags interval;"


V4 = Words(
    table=IP,
    ip="ip",
    address="ipv4_addr",
    icmp="icmp",
    errors="destination-unreachable, time-exceeded, parameter-problem",
    link_local_input="",
    link_local_output="",
    # RFC 2131, 4.1: who has no address broadcasts, who renews one uses it.
    asked=f"""
        add rule ip qubes input iif @vifs ip saddr 0.0.0.0 ip daddr 255.255.255.255 \
udp sport 68 udp dport 67 {ASKED} accept comment "{ADDRESSES.name}"
        add rule ip qubes input iif . ip saddr @sources \
udp sport 68 udp dport 67 {ASKED} accept comment "{ADDRESSES.name}"
        """,
    told=f"""
        add rule ip qubes output oif @vifs ip daddr 255.255.255.255 \
udp sport 67 udp dport 68 accept comment "{ADDRESSES.name}"
        add rule ip qubes output oif . ip daddr @behind \
udp sport 67 udp dport 68 accept comment "{ADDRESSES.name}"
        """,
)
# Neighbour discovery is not tracked by conntrack and carries no reply state
# (net/netfilter/nf_conntrack_proto_icmpv6.c); hop limit 255 proves the sender
# is on the link (RFC 4861, 7.1).
V6 = Words(
    table=IP6,
    ip="ip6",
    address="ipv6_addr",
    icmp="icmpv6",
    errors="destination-unreachable, packet-too-big, time-exceeded, parameter-problem",
    link_local_input="""
        add rule ip6 qubes input ip6 hoplimit 255 icmpv6 type \
{ nd-neighbor-solicit, nd-neighbor-advert } accept comment "neighbours"
        add rule ip6 qubes input iif @own_in ip6 hoplimit 255 icmpv6 type \
nd-router-advert accept comment "routers"
        """,
    link_local_output="""
        add rule ip6 qubes output icmpv6 type \
{ nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, mld2-listener-report } \
accept comment "neighbours"
        """,
    # RFC 8415, 7.2; RFC 4861, 6.1
    asked=f"""
        add rule ip6 qubes input iif @vifs ip6 saddr fe80::/10 ip6 daddr ff02::1:2 \
udp sport 546 udp dport 547 {ASKED} accept comment "{ADDRESSES.name}"
        add rule ip6 qubes input iif @vifs ip6 saddr {{ ::, fe80::/10 }} \
ip6 hoplimit 255 icmpv6 type nd-router-solicit {ASKED} accept \
comment "{ADDRESSES.name}"
        """,
    told=f"""
        add rule ip6 qubes output oif @vifs ip6 daddr fe80::/10 \
udp sport 547 udp dport 546 accept comment "{ADDRESSES.name}"
        add rule ip6 qubes output oif @vifs ip6 saddr fe80::/10 ip6 daddr ff02::1 \
ip6 hoplimit 255 icmpv6 type nd-router-advert accept comment "{ADDRESSES.name}"
        """,
)


def _tables(w: Words) -> str:
    t = w.table
    return f"""
        add table {t}
        add set {t} up {{ {INDEXES} }}
        add set {t} own_in {{ {INDEXES} }}
        add set {t} vifs {{ {INDEXES} }}
        add set {t} asking {{ {ASKING} }}
        add set {t} pinging {{ {ASKING} }}
        add map {t} own {{ {OWN} }}
        add map {t} clients {{ {w.clients} }}
        add set {t} sources {{ {w.sources} }}
        add set {t} here {{ {w.here} }}
        add set {t} behind {{ {w.behind} }}
        add map {t} dns {{ {w.dns} }}
        add set {t} resolvers {{ {w.addresses} }}
        add chain {t} custom-input
        add chain {t} custom-forward
        add chain {t} outward
        add chain {t} replies
        add chain {t} refuse
        add chain {t} own-traffic
        add chain {t} own-names
        add chain {t} into-daemon
        add chain {t} dstnat {{ type nat hook prerouting priority dstnat; }}
        add chain {t} srcnat {{ type nat hook postrouting priority srcnat; }}
        add chain {t} input {{ type filter hook input priority filter; policy drop; }}
        add chain {t} forward \
{{ type filter hook forward priority filter; policy drop; }}
        add chain {t} output {{ type filter hook output priority filter; policy drop; }}
        """ + "".join(f"flush chain {t} {chain}\n        " for chain in CHAINS)


def _forward(w: Words) -> str:
    t, ip = w.table, w.ip
    return f"""
        add rule {t} refuse counter reject with {w.icmp} type admin-prohibited
        add rule {t} forward jump custom-forward
        add rule {t} forward ct direction reply goto replies
        add rule {t} forward ct direction original oif @up jump outward
        add rule {t} forward iif . {ip} saddr @sources goto refuse
        add rule {t} replies ct state established \
iif @up oif . {ip} daddr @behind accept comment "replies to clients"
        add rule {t} replies ct state established \
iif . {ip} saddr @sources oif @up accept comment "replies of clients"
        add rule {t} replies ct state established \
iif . {ip} saddr @sources oif . {ip} daddr @behind accept \
comment "replies between clients"
        add rule {t} replies ct state related \
iif @up oif . {ip} daddr @behind {w.icmp} type {{ {w.errors} }} accept \
comment "errors about clients' flows"
        add rule {t} replies iif . {ip} saddr @sources goto refuse
        add rule {t} dstnat meta l4proto {{ tcp, udp }} th dport 53 \
iif . {ip} saddr @sources dnat to {ip} daddr map @dns
        add rule {t} srcnat oif @up masquerade random,fully-random
        """


def _local(w: Words) -> str:
    t, ip = w.table, w.ip
    return f"""
        add rule {t} input jump custom-input
        add rule {t} input iif "lo" accept
        {w.link_local_input}
        add rule {t} input iif @own_in ct direction reply \
ct state established,related accept comment "replies to own traffic"
        add rule {t} input iif . {ip} saddr @sources {ip} daddr @here \
{w.icmp} type echo-request {OFTEN} accept comment "{PING.name}"
        {w.asked}
        add rule {t} input iif . {ip} saddr @sources jump into-daemon
        add rule {t} input iif . {ip} saddr @sources goto refuse
        add rule {t} output oif "lo" accept
        {w.link_local_output}
        add rule {t} output {w.icmp} type {{ {w.errors} }} oif @up ct state related \
accept comment "errors to the uplink"
        add rule {t} output oif vmap @own
        add rule {t} output oif . {ip} daddr @behind ct direction reply \
ct state established accept comment "{PING.name}"
        add rule {t} output oif . {ip} daddr @behind {w.icmp} type {{ {w.errors} }} \
accept comment "errors to clients"
        {w.told}
        add rule {t} own-traffic accept comment "{OWN_TRAFFIC.name}"
        add rule {t} own-names {ip} daddr @resolvers meta l4proto {{ tcp, udp }} \
th dport 53 accept comment "{OWN_NAMES.name}"
        """


def _family(w: Words) -> str:
    return "".join(dedent(part) for part in (_tables(w), _forward(w), _local(w)))


SKELETON_TEXT = _family(V4) + _family(V6)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Which sysctl has which value where, as a table (kernel: networking/ip-sysctl.rst).

``{}`` stands for an interface.  Of what Qubes sets (``81-qubes.conf.optional``)
all is here.  Where ``all`` and an interface both have a key, the kernel takes
the larger of rp_filter, arp_ignore and arp_announce, either of proxy_arp, and
both of accept_redirects while it forwards; so ``all`` is neutral or strict.
"""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType


class Role(Enum):
    """Whose values."""

    HOST = "the network namespace as a whole"
    NEW = "interfaces that are made later"
    VIF = "an interface with a client behind it"
    UPLINK = "an uplink that dom0 configures"
    ADOPTED = "an uplink that something else in this domain configures"
    IPV6 = "an interface with an IPv6 address of ours"
    NO_IPV6 = "an interface without"


EVERYWHERE = {
    "ipv4/conf/{}/accept_redirects": 0,
    "ipv4/conf/{}/secure_redirects": 0,
    "ipv4/conf/{}/send_redirects": 0,
    "ipv4/conf/{}/accept_source_route": 0,
    "ipv4/conf/{}/arp_ignore": 1,
    "ipv4/conf/{}/arp_announce": 2,
    "ipv4/conf/{}/route_localnet": 0,
    "ipv4/conf/{}/bc_forwarding": 0,
    "ipv4/conf/{}/drop_unicast_in_l2_multicast": 1,
    "ipv6/conf/{}/accept_redirects": 0,
    "ipv6/conf/{}/accept_source_route": -1,
    "ipv6/conf/{}/accept_ra": 0,
    "ipv6/conf/{}/autoconf": 0,
    "ipv6/conf/{}/drop_unicast_in_l2_multicast": 1,
    "ipv6/conf/{}/drop_unsolicited_na": 1,
}

# The guard judges sources (ADR 0017).  A reverse lookup adds nothing to it, and with
# two vifs of one address would mute the older one.  Without accept_local the kernel
# makes one all the same where there are routing rules, to find its own addresses
# (fib_validate_source(), net/ipv4/fib_frontend.c).
UNASKED = {"ipv4/conf/{}/rp_filter": 0, "ipv4/conf/{}/accept_local": 1}

TO_CLIENTS = UNASKED | {
    "ipv4/conf/{}/proxy_arp": 1,
    "ipv6/conf/{}/proxy_ndp": 1,
    "ipv6/conf/{}/accept_dad": 0,
    "ipv6/conf/{}/addr_gen_mode": 1,
}

TO_NETWORK = UNASKED | {
    "ipv4/conf/{}/proxy_arp": 0,
    "ipv6/conf/{}/proxy_ndp": 0,
}

# Fragments wait for the others of their packet in one place for all clients.  In the
# kernel's 4 MB, for 30 and 60 s, 60 lone ones a second left no room for anybody's;
# those of a packet that is whole come within milliseconds.
_WAITING = ("ipv4/ipfrag_time", "netfilter/nf_conntrack_frag6_timeout")
_ROOM = ("ipv4/ipfrag_high_thresh", "netfilter/nf_conntrack_frag6_high_thresh")

# Forwarding is constant and comes first: turning it resets accept_redirects.
# Without tcp_loose a flow cannot start in the middle, so a flow that was cut
# stays cut.
OF_HOST = {
    "ipv4/ip_forward": 1,
    "ipv6/conf/all/forwarding": 1,
    # A refusal is an ICMP error, and the kernel's 6 at once and then one a second
    # to a client (net/ipv4/icmp.c) make the others look like a hang.
    "ipv4/icmp_ratelimit": 20,  # ms; a whole number of ticks at any HZ
    "ipv6/icmp/ratelimit": 20,
    "ipv4/icmp_echo_ignore_broadcasts": 1,
    "ipv4/icmp_ignore_bogus_error_responses": 1,
    "ipv6/icmp/echo_ignore_multicast": 1,
    "ipv6/icmp/echo_ignore_anycast": 1,
    "ipv6/max_hbh_length": 0,
    "ipv6/max_dst_opts_length": 0,
    "netfilter/nf_conntrack_tcp_loose": 0,
    "ipv4/conf/all/rp_filter": 0,
    "ipv4/conf/all/proxy_arp": 0,
    "ipv6/conf/all/accept_dad": 0,
    **dict.fromkeys(_WAITING, 3),  # seconds
    **dict.fromkeys(_ROOM, 1 << 24),  # bytes
}

VALUES: Mapping[Role, Mapping[str, int]] = MappingProxyType(
    {
        Role.HOST: OF_HOST | {k.format("all"): v for k, v in EVERYWHERE.items()},
        Role.NEW: EVERYWHERE,
        Role.VIF: EVERYWHERE | TO_CLIENTS,
        Role.UPLINK: EVERYWHERE
        | TO_NETWORK
        | {"ipv6/conf/{}/accept_dad": 0, "ipv6/conf/{}/addr_gen_mode": 1},
        Role.ADOPTED: EVERYWHERE | TO_NETWORK,
        Role.IPV6: {"ipv6/conf/{}/disable_ipv6": 0},
        Role.NO_IPV6: {"ipv6/conf/{}/disable_ipv6": 1},
    }
)
"""The keys of each role, below ``/proc/sys/net``, in the order of writing."""

# SPDX-License-Identifier: GPL-2.0-or-later
"""How many flows the connection table of this namespace holds.

``nf_conntrack_max`` is one number for all namespaces, and only the first one may
change it; what is compared with it is counted for each (__nf_conntrack_alloc(),
net/netfilter/nf_conntrack_core.c), so a namespace cannot fill another's.
"""

from agent.sysctl import read

UNKNOWN = 4096
"""Before conntrack is loaded: less than any machine has of 256 MB or more."""


def capacity() -> int:
    """Return the number of flows."""
    return read("netfilter/nf_conntrack_max") or UNKNOWN

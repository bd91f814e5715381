# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether the network says that something cannot be reached.

A server that does not know our key is as silent as one that is not there.  But
where nothing is, a router or the host itself may answer with an ICMP error, which
the rules let in for flows of this domain's own (RELATED).  The kernel counts them
(RFC 2011 icmpInDestUnreachs, RFC 2466 ipv6IfIcmpInDestUnreachs), and while a server
is tried nothing else is sent.
"""

from contextlib import suppress
from pathlib import Path

PLACE = Path("/proc/thread-self/net")  # of the network namespace we are in


def told(place: Path = PLACE) -> int:
    """Return how often the network said so, 0 if the kernel does not tell."""
    found = 0
    with suppress(OSError, LookupError, ValueError):
        found += _of_ipv4((place / "snmp").read_text())
    with suppress(OSError, LookupError, ValueError):
        found += _of_ipv6((place / "snmp6").read_text())
    return found


def _of_ipv4(text: str) -> int:
    """Read two lines that begin with ``Icmp:``: the names, then the numbers."""
    names, numbers = (
        line.split() for line in text.splitlines() if line.startswith("Icmp:")
    )
    return int(dict(zip(names, numbers, strict=True))["InDestUnreachs"])


def _of_ipv6(text: str) -> int:
    words = dict(line.split()[:2] for line in text.splitlines())
    return int(words["Icmp6InDestUnreachs"])

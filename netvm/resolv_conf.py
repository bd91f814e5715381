# SPDX-License-Identifier: GPL-2.0-or-later
"""The servers in resolv.conf(5), the source that every system has."""

from collections.abc import Iterator

from netvm.resolvers import Nameservers, gathered, read_server
from rules.model import Address


def parse(untrusted_text: bytes) -> Nameservers:
    """Read the ``nameserver`` lines; never raises.

    Words are separated by any white space, and what follows the address is
    ignored.  A line that names no address, or one bound to an interface
    (``fe80::1%eth0``), is a problem and nothing more.
    """
    return gathered(_servers(untrusted_text))


def _servers(untrusted_text: bytes) -> Iterator[Address | str]:
    for untrusted_line in untrusted_text.splitlines():
        untrusted_words = untrusted_line.split()
        if untrusted_words[:1] != [b"nameserver"]:
            continue
        if len(untrusted_words) == 1:
            yield "nameserver without an address"
        else:
            yield read_server(untrusted_words[1].decode("ascii", "backslashreplace"))

# SPDX-License-Identifier: GPL-2.0-or-later
"""What a server pushed, read as data from the variables of ``>UPDOWN``.

Addresses, resolvers and a size; nothing else of it is looked at.  A server may
say anything, so all of it is checked, and what cannot be is as if it were not
said.  Pure.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from rules.model import Address

LEAST_MTU, MOST_MTU, USUAL_MTU = 576, 65535, 1500  # bytes
MOST_RESOLVERS = 8
MOST_OPTIONS = 256  # of foreign_option_N that are looked at

READ = re.compile(
    r"ifconfig_local|ifconfig_ipv6_local|tun_mtu|foreign_option_[1-9][0-9]{0,2}"
)
"""The names of the variables that are looked at; a server makes as many others."""

_NUMBER = re.compile(r"[0-9]{1,5}")
_OPTION = re.compile(r"dhcp-option DNS6? ([0-9A-Fa-f:.]{2,45})")


@dataclass(frozen=True, slots=True)
class Pushed:
    """``own`` are the tunnel's addresses, at most one of each family.

    ``resolvers`` are those behind the tunnel in the server's order, ``mtu`` the
    bytes that a packet in it may have.
    """

    own: frozenset[Address] = frozenset()
    resolvers: tuple[Address, ...] = ()
    mtu: int = USUAL_MTU


def read(untrusted_variables: Mapping[str, str]) -> Pushed:
    """Read what is there and good; never raises."""
    own = frozenset(_own(untrusted_variables))
    families = {address.version for address in own}
    resolvers = dict.fromkeys(
        address
        for address in _resolvers(untrusted_variables)
        if address.version in families and address not in own
    )
    return Pushed(
        own, tuple(resolvers)[:MOST_RESOLVERS], _mtu(untrusted_variables.get("tun_mtu"))
    )


def _own(untrusted_variables: Mapping[str, str]) -> Iterator[Address]:
    four = _address(untrusted_variables.get("ifconfig_local", ""))
    six = _address(untrusted_variables.get("ifconfig_ipv6_local", "").partition("/")[0])
    if isinstance(four, IPv4Address):
        yield four
    if isinstance(six, IPv6Address):
        yield six


def _resolvers(untrusted_variables: Mapping[str, str]) -> Iterator[Address]:
    for number in range(1, MOST_OPTIONS):
        untrusted_option = untrusted_variables.get(f"foreign_option_{number}")
        if untrusted_option is None:
            return
        if found := _OPTION.fullmatch(untrusted_option):
            address = _address(found[1])
            if address is not None:
                yield address


def _address(untrusted_text: str) -> Address | None:
    """Return the address of one host that packets can be sent to."""
    try:
        address = ip_address(untrusted_text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and (
        address.scope_id is not None or address.ipv4_mapped
    ):
        return None
    useless = (
        address.is_loopback,
        address.is_multicast,
        address.is_unspecified,
        address.is_link_local,
        isinstance(address, IPv4Address) and address.is_reserved,
    )
    return None if any(useless) else address


def _mtu(untrusted_text: str | None) -> int:
    if untrusted_text is None or not _NUMBER.fullmatch(untrusted_text):
        return USUAL_MTU
    return max(LEAST_MTU, min(int(untrusted_text), MOST_MTU))

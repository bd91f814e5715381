# SPDX-License-Identifier: GPL-2.0-or-later
"""The places outside that a line of a bridge, or a proxy, names.  Pure."""

import re
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from rules.model import MAX_PORT, Address, Family, Name, RuleError, family

TCP, UDP = 6, 17  # IANA protocol numbers

ADDRESS = re.compile(r"(?:([0-9.]{7,15})|\[([0-9A-Fa-f:.]{2,45})\]):([0-9]{1,5})")


class PlaceError(ValueError):
    """Words that are no place; the message never holds them."""


@dataclass(frozen=True, slots=True, repr=False)
class Place:
    """A host and a port; ``host`` is a lower case name if text.

    Where a bridge is, is secret, so ``repr`` does not say it.
    """

    host: Address | str
    port: int
    proto: int = TCP

    def __repr__(self) -> str:
        return "Place(…)"


def address_and_port(untrusted_word: str) -> tuple[Address, int]:
    """Read ``ADDRESS:PORT``, an IPv6 address in brackets, or raise `PlaceError`."""
    found = ADDRESS.fullmatch(untrusted_word)
    if not found:
        raise PlaceError("expected ADDRESS:PORT")
    try:
        address = ip_address(found[1] or found[2])
    except ValueError:
        raise PlaceError("expected an IP address") from None
    if not is_host(address):
        raise PlaceError("expected the address of another host")
    return address, port(found[3])


def port(untrusted_digits: str) -> int:
    """Read a port, at most five digits, or raise `PlaceError`."""
    number = int(untrusted_digits)
    if not 0 < number <= MAX_PORT:
        raise PlaceError(f"expected a port of 1-{MAX_PORT}")
    return number


def host(untrusted_word: str) -> Address | str:
    """Read a host name or an IPv4 address, or raise `PlaceError`."""
    try:
        address = ip_address(untrusted_word)
    except ValueError:
        pass
    else:
        if not is_host(address):
            raise PlaceError("expected the address of another host")
        return address
    try:
        return Name(untrusted_word.lower()).host
    except RuleError:
        # Its words speak of rules, and say the name.
        raise PlaceError("expected a host name") from None


def is_host(address: Address) -> bool:
    """Whether another host can have this address."""
    mapped = family(address) is Family.IPV6 and IPv6Address(address).ipv4_mapped
    return not (
        mapped or address.is_loopback or address.is_multicast or address.is_unspecified
    )

# SPDX-License-Identifier: GPL-2.0-or-later
"""The address plan, which is that of Qubes (``qubes/vm/mix/net.py``).

An AppVM, ProxyVM or NetVM has the address that its ``qid`` says, a disposable
the one of its ``dispid``; both are 1..9999 here.  (Qubes draws a dispid of 0
too, whose address 10.138.0.0 some systems take for the network's own.)
Every domain has the same MAC on its uplink, and its netvm's address as gateway.
"""

from collections.abc import Collection, Iterable, Mapping
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_network,
)

from rules.internal import INTERNAL
from rules.virtual_dns import VIRTUAL4, VIRTUAL6

MAX_ID = 9999
MAC = "00:16:3e:5e:6c:00"
NETMASK = "255.255.255.255"
DNS4, DNS6 = VIRTUAL4, VIRTUAL6
# What is given to domains and to virtual resolvers, and is nobody's outside.
_INTERNAL = [ip_network(prefix) for prefix in sorted(INTERNAL)]
INTERNAL4 = tuple(n for n in _INTERNAL if isinstance(n, IPv4Network))
INTERNAL6 = tuple(n for n in _INTERNAL if isinstance(n, IPv6Network))

HOSTS = 254  # x.y.z.1 .. x.y.z.254


def ip4(number: int, *, disposable: bool = False) -> IPv4Address:
    """Return the IPv4 address of a ``qid``, or of a ``dispid``."""
    _check(number)
    high, low = (0, number) if number <= HOSTS else _split(number)
    return IPv4Address(f"10.{138 if disposable else 137}.{high}.{low}")


def ip6(number: int, *, disposable: bool = False) -> IPv6Address:
    """Return the IPv6 address of a ``qid``, or of a ``dispid``."""
    _check(number)
    return IPv6Address(f"fd09:24ef:4179::{'a8a' if disposable else 'a89'}:{number:x}")


def first_free(taken: Collection[int]) -> int:
    """Return the lowest number not ``taken``; `LookupError` when all are."""
    for number in range(1, MAX_ID + 1):
        if number not in taken:
            return number
    raise LookupError(f"all {MAX_ID} numbers are taken")


def number_names(names: Iterable[str], known: Mapping[str, int]) -> dict[str, int]:
    """Return ``known`` with a number for each new name, the lowest free one.

    A name that is no longer used keeps its number, so a domain that comes back
    has its old address and no other domain inherits it.
    """
    numbers = dict(known)
    for name in names:
        if name not in numbers:
            numbers[name] = first_free(set(numbers.values()))
    return numbers


def _check(number: int) -> None:
    if not 1 <= number <= MAX_ID:
        raise ValueError(f"{number}: no qid or dispid, expected 1 to {MAX_ID}")


def _split(number: int) -> tuple[int, int]:
    return (number - 1) // HOSTS, (number - 1) % HOSTS + 1

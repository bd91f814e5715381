# SPDX-License-Identifier: GPL-2.0-or-later
"""The one table that sharing the host's connection puts into the host.

It never changes a rule of others and never overrules one: where the host's
firewall drops forwarded packets (Docker, ufw), the owner has to allow them.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from rules.model import Address, Family, family

TABLE = "inet ravelin-host"
REMOVE = f"table {TABLE}\ndelete table {TABLE}\n"
SHARED4, SHARED6 = "10.139.254.0/24", "fd09:24ef:4179::a8b:fe00/120"

# What a router says about a packet it forwards; nothing else goes to a NetVM.
ERRORS = (
    "icmp type { destination-unreachable, time-exceeded, parameter-problem }",
    "icmpv6 type { 1, 2, 3, 4 }",  # the same, and packet-too-big (RFC 4443)
)


@dataclass(frozen=True, slots=True)
class Shared:
    """A cable to a NetVM: the host's end, and the NetVM's only addresses."""

    name: str
    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class Exits:
    """The host's ways out.

    ``indexes`` are the interfaces with a default route of each IP version;
    ``enabled`` the names of those that did not forward before we came.
    """

    indexes: Mapping[Family, frozenset[int]]
    enabled: frozenset[str]


def script(cables: Iterable[Shared], exits: Exits) -> str:
    """Return nft text that makes the table what it has to be, in one transaction.

    Accepts are by interface index, drops by name, so that an interface that
    comes again under an old name is not let through by an old rule.
    """
    known = tuple(cables)
    chains = {
        "forward": ("filter hook forward priority filter", _forward(known, exits)),
        "input": ("filter hook input priority filter", _input(known)),
        "output": ("filter hook output priority filter", _output(known)),
        "leave": ("nat hook postrouting priority srcnat", _leave(known, exits)),
    }
    text = "".join(
        f"chain {name} {{\ntype {kind}; policy accept;\n"
        + "".join(f"{rule}\n" for rule in rules)
        + "}\n"
        for name, (kind, rules) in chains.items()
    )
    return f"table {TABLE}\nflush table {TABLE}\ntable {TABLE} {{\n{text}}}\n"


def _forward(cables: tuple[Shared, ...], exits: Exits) -> Iterator[str]:
    for cable in cables:
        here, there = f'iifname "{cable.name}"', f'oifname "{cable.name}"'
        for address in cable.addresses:
            if found := _set(exits, address):
                yield f"{here} {_ip(address)} saddr {address} oif {found} accept"
                yield (
                    f"{there} {_ip(address)} daddr {address} iif {found}"
                    " ct state established,related accept"
                )
        yield f"{here} drop"
        yield f"{there} drop"
    # Nobody else may use that these interfaces forward now, or our addresses.
    if exits.enabled:
        names = ", ".join(f'"{name}"' for name in sorted(exits.enabled))
        yield f"meta nfproto ipv4 iifname {{ {names} }} drop"
    yield f"ip saddr {SHARED4} drop"
    yield f"ip6 saddr {SHARED6} drop"


def _input(cables: tuple[Shared, ...]) -> Iterator[str]:
    return (f'iifname "{cable.name}" drop' for cable in cables)


def _output(cables: tuple[Shared, ...]) -> Iterator[str]:
    for cable in cables:
        yield from (f'oifname "{cable.name}" {error} accept' for error in ERRORS)
        yield f'oifname "{cable.name}" drop'


def _leave(cables: tuple[Shared, ...], exits: Exits) -> Iterator[str]:
    for cable in cables:
        for address in cable.addresses:
            if found := _set(exits, address):
                yield f"{_ip(address)} saddr {address} oif {found} masquerade"


def _ip(address: Address) -> str:
    return "ip" if family(address) is Family.IPV4 else "ip6"


def _set(exits: Exits, address: Address) -> str:
    indexes = exits.indexes[family(address)]
    return f"{{ {', '.join(map(str, sorted(indexes)))} }}" if indexes else ""

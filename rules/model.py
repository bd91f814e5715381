# SPDX-License-Identifier: GPL-2.0-or-later
"""What a rule can say.

The language is the one of ``qvm-firewall`` (Qubes OS,
``doc/vm-interface.rst`` and ``qubes/firewall.py``).  A value of these types is
well formed by construction: an impossible combination raises `RuleError`.
"""

import re
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address
AddressRange = IPv4Network | IPv6Network

MAX_PORT = 65535
MAX_ICMP_TYPE = 255
MAX_EXPIRE = 253_402_300_799
"""The last second of the year 9999: as far as Qubes can represent."""
MAX_NAME = 253

_SHOWN = 60
_LABEL = "[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
# A last label that looks like a number is a mistyped address, and C libraries
# read "127.1" and "127.0x1" as addresses that nobody meant to allow.
_NAME = re.compile(rf"(?:{_LABEL}\.)*(?!(?:[0-9]+|0x[0-9a-f]*)\.?\Z){_LABEL}\.?")
_COMMENT = re.compile(r"[A-Za-z0-9:;,./_\[\] -]+")


class RuleError(ValueError):
    """A rule that cannot be read.  It means deny, for its client alone."""


def shown(untrusted_text: str) -> str:
    """Quote text for a message: printable ASCII and not long, whatever it holds."""
    more = "..." if len(untrusted_text) > _SHOWN else ""
    return ascii(untrusted_text[:_SHOWN]) + more


class Action(Enum):
    """What happens to a packet; DROP is shown to the client as a refusal."""

    ACCEPT = "accept"
    DROP = "drop"


class Proto(Enum):
    """The protocols a rule can name; ICMP means ICMPv6 in IPv6."""

    TCP = "tcp"
    UDP = "udp"
    ICMP = "icmp"


class SpecialTarget(Enum):
    """Destinations that are a role, not an address."""

    DNS = "dns"


class Family(Enum):
    """An IP version; the value is its number of address bits."""

    IPV4 = 32
    IPV6 = 128


def family(address: Address | AddressRange) -> Family:
    """Return the family of an address or a network."""
    match address:
        case IPv4Address() | IPv4Network():
            return Family.IPV4
        case IPv6Address() | IPv6Network():
            return Family.IPV6


@dataclass(frozen=True, slots=True)
class Anywhere:
    """Every address of both families."""


@dataclass(frozen=True, slots=True)
class Network:
    """The addresses of one prefix (``dst4=``, ``dst6=``)."""

    prefix: AddressRange

    def __post_init__(self) -> None:
        """Refuse IPv4-mapped IPv6 (RFC 4291 2.5.5.2): never seen on a wire."""
        first = self.prefix.network_address
        if isinstance(first, IPv6Address) and first.ipv4_mapped:
            raise RuleError(f"{self.prefix}: expected the IPv4 address itself")


@dataclass(frozen=True, slots=True)
class Name:
    """The addresses a host name has at the time (``dsthost=``).

    Lower case letters, digits, ``-`` and ``_``; labels of 1..63 characters,
    253 in all, the last one not a number; one dot may close it (RFC 1123 2.1).
    """

    host: str

    def __post_init__(self) -> None:
        """Refuse what no resolver should be asked for."""
        if len(self.host) > MAX_NAME or not _NAME.fullmatch(self.host):
            raise RuleError(
                f"dsthost {shown(self.host)}: expected an address, a prefix or a"
                " lower case host name that does not end in a number"
            )


Destination = Anywhere | Network | Name


@dataclass(frozen=True, slots=True)
class Ports:
    """A closed range of TCP or UDP destination ports, 0..65535."""

    first: int
    last: int

    def __post_init__(self) -> None:
        """Refuse an empty or impossible range."""
        if not 0 <= self.first <= self.last <= MAX_PORT:
            raise RuleError(
                f"dstports {self.first}-{self.last}: expected a rising range within"
                f" 0-{MAX_PORT}"
            )


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a client's list.

    ``expire`` is in seconds since the Unix epoch.  ``icmp_type`` below 128 is
    an ICMPv4 type and stands for its counterpart in IPv6; from 128 on it is an
    ICMPv6 type.
    """

    action: Action
    destination: Destination = Anywhere()
    proto: Proto | None = None
    special: SpecialTarget | None = None
    ports: Ports | None = None
    icmp_type: int | None = None
    expire: int | None = None
    comment: str | None = None

    def __post_init__(self) -> None:
        """Refuse combinations that no packet could ever mean."""
        if self.icmp_type is not None and self.proto is not Proto.ICMP:
            raise RuleError("icmptype: only with proto=icmp")
        if self.icmp_type is not None and not 0 <= self.icmp_type <= MAX_ICMP_TYPE:
            raise RuleError(f"icmptype {self.icmp_type}: not within 0-{MAX_ICMP_TYPE}")
        if self.ports is not None and self.proto is Proto.ICMP:
            raise RuleError("dstports: not with proto=icmp")
        if self.special is not None and self.proto is Proto.ICMP:
            raise RuleError("specialtarget=dns: not with proto=icmp")
        if self.expire is not None and not 0 <= self.expire <= MAX_EXPIRE:
            raise RuleError(f"expire {self.expire}: not within 0-{MAX_EXPIRE}")
        if self.comment is not None and not _COMMENT.fullmatch(self.comment):
            raise RuleError(
                f"comment {shown(self.comment)}: expected ASCII letters, digits,"
                " spaces and :;,./-_[]"
            )


@dataclass(frozen=True, slots=True)
class Policy:
    """A client's list: first match decides, ``default`` when none does."""

    rules: tuple[Rule, ...]
    default: Action = Action.DROP


@dataclass(frozen=True, slots=True)
class Refused:
    """A list that could not be read.  It denies everything, and says why."""

    reason: str


ClientPolicy = Policy | Refused

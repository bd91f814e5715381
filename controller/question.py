# SPDX-License-Identifier: GPL-2.0-or-later
"""What people ask of a flow: which host, which protocol, which port."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from controller.nearest import one_of
from rules.decide import ICMP, TCP, UDP
from rules.model import MAX_PORT, Address, Name, RuleError, shown

PROTOS: Mapping[str, int] = {"tcp": TCP, "udp": UDP, "icmp": ICMP}
DESTINATION = re.compile(
    r"(?:\[(?P<ip6>[^]]+)\]|(?P<host>[^:]+)|(?P<bare>[^:]*(?::[^:]*){2,}))"
    r"(?::(?P<port>[0-9]{1,5}))?\Z"
)


@dataclass(frozen=True, slots=True)
class Question:
    """A new flow: ``proto`` is tcp, udp or icmp (an echo request).

    ``told`` are the addresses that the domain itself was told for the host, None
    if it was not asked.
    """

    host: str
    proto: str
    port: int | None
    told: tuple[Address, ...] | None = None


class QuestionError(ValueError):
    """A destination that cannot be read."""


def question(proto: str | None, untrusted_destination: str) -> Question:
    """Read ``HOST``, ``HOST:PORT``, ``ADDRESS6`` or ``[ADDRESS6]:PORT``.

    Without ``proto`` a port means tcp and no port a ping.
    """
    found = DESTINATION.match(untrusted_destination)
    if found is None:
        raise QuestionError(
            f"{untrusted_destination}: no destination, expected HOST, HOST:PORT "
            "or [ADDRESS]:PORT"
        )
    port = None if found["port"] is None else int(found["port"])
    asked = proto or ("icmp" if port is None else "tcp")
    if asked not in PROTOS:
        raise QuestionError(f"{asked}: no protocol here, expected {one_of(PROTOS)}")
    # As in rules: names of hosts know no case (RFC 4343).
    host = (found["ip6"] or found["host"] or found["bare"]).lower()
    if asked == "icmp" and port is not None:
        raise QuestionError(f"icmp has no ports, expected {host}")
    if asked != "icmp" and (port is None or port > MAX_PORT):
        raise QuestionError(f"{asked} needs a port, expected {host}:PORT, 0 to 65535")
    _named_or_numbered(host)
    return Question(host, asked, port)


def _named_or_numbered(host: str) -> None:
    try:
        ip_address(host)
    except ValueError:
        try:
            Name(host)
        except RuleError:
            text = "no address, and no name that can be asked for"
            raise QuestionError(f"{shown(host)}: {text}") from None

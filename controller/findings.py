# SPDX-License-Identifier: GPL-2.0-or-later
"""What a proof came to, as the data that ``ravelin verify --json`` prints."""

from collections.abc import Iterable, Mapping

from controller.admin import Json
from proof.claims import Claim, Result, Status
from proof.machine import Seen
from proof.world import Hop, Packet
from rules.decide import ICMP, ICMPV6, TCP, UDP

Row = Mapping[str, Json]

_PORTS = {TCP: "tcp", UDP: "udp"}
_TYPES = {ICMP: "icmp", ICMPV6: "icmp"}
_TYPE = 8  # bits of the first word of ICMP below its type
_STATES = (
    *("new", "established", "related", "established reply", "related reply"),
    *("invalid", "untracked"),
)
"""By number, as field ``ct`` of a proof has them."""

SENT, UNSURE = "sent", "unsure"
PASSED = frozenset({SENT, "delivered"})
"""The verdicts of a domain that lets a packet through (`proof.world.Hop`)."""


def finding(result: Result, words: str | None, replay: str | None) -> Row:
    """Return an answer: ``words`` are those of who asked, ``replay`` what was seen."""
    packet = result.packet
    enters = f"{result.domain} by {result.came_by}" if result.domain else None
    return {
        "claim": words or str(result.claim),
        "version": result.version,
        "status": result.status.value,
        "packet": None if packet is None else packet_text(packet),
        "enters": enters,
        "hops": hops(result.hops),
        "notes": list(result.notes),
        "generations": dict(result.generations),
        "replay": replay,
        "domains": [*concerned(result.claim)],
    }


def unclaimed(words: str, reason: str) -> Row:
    """Return what could not even be asked."""
    return {
        "claim": words,
        "version": None,
        "status": Status.UNKNOWN.value,
        "packet": None,
        "enters": None,
        "hops": [],
        "notes": [reason],
        "generations": {},
        "replay": None,
        "domains": [],
    }


def concerned(claim: Claim) -> tuple[str, ...]:
    """Return the domains that a claim names, whose traffic it is about first."""
    names = (getattr(claim, key, None) for key in ("client", "domain"))
    return tuple(name for name in names if isinstance(name, str))


def hops(found: Iterable[Hop]) -> list[Json]:
    """Return a packet's way, as the kernels have decided it."""
    return [
        {
            "domain": hop.domain,
            "came_by": hop.came_by,
            "packet": packet_text(hop.packet),
            "verdict": hop.verdict,
            "rule": rule_text(hop),
            "out": hop.out,
            "reason": hop.reason or None,
        }
        for hop in found
    ]


def rule_text(hop: Hop) -> str | None:
    """Return the rule that decided, or the chain whose policy did."""
    match hop.rule:
        case Seen(chain, handle, comment):
            return f"{chain} handle {handle}" + (f' "{comment}"' if comment else "")
        case None:
            return None if hop.chain is None else f"policy of {hop.chain}"


def packet_text(packet: Packet) -> str:
    """Return a packet on one line."""
    source, destination, proto = packet.source, packet.destination, packet.protocol
    state = "" if not packet.state else f" ({_STATES[packet.state]})"
    if proto in _PORTS:
        ends = f"{source} port {packet.first} > {destination} port {packet.second}"
        return f"{_PORTS[proto]} {ends}{state}"
    kind = f" type {packet.first >> _TYPE}" if proto in _TYPES else ""
    name = _TYPES.get(proto, f"protocol {proto}")
    return f"{name}{kind} {source} > {destination}{state}"


def summary(found: Iterable[Row]) -> Mapping[str, Json]:
    """Return how many answers there are of each kind."""
    counts = dict.fromkeys((status.value for status in Status), 0)
    for row in found:
        counts[str(row["status"])] += 1
    return counts
